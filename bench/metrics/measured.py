"""What measuring a metric gives."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Measured:
    """A value, its standard error, and what each image does to it.

    The influence of image i is what the value would move by, times n, if the image had a little
    more weight: to first order the value is its expectation plus the mean of the influences. So
    their standard deviation over √n is the standard error of the value, and that of the difference
    of two cells' influences, image by image at equal seeds, over √n is the error of the difference.

    Args:
        value: of the metric.
        standard_error: of the value, over other images of the same law; the reference is as it is.
        influence: float64 (n,) with mean 0, in units of the value; None where there is none.

    Reference: F. R. Hampel, "The influence curve and its role in robust estimation", JASA 69
    (1974).
    """

    value: float
    standard_error: float
    influence: NDArray[np.float64] | None = None
