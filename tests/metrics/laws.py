"""Features to measure: laws that are known, and ones that look like an extractor's."""

import numpy as np
from numpy.typing import NDArray


def inception_like(n: int, d: int, seed: int, shift: float = 0.0) -> NDArray[np.float32]:
    """Features as a network's last average pooling gives: non-negative, correlated, many small.

    Args:
        n: images.
        d: features.
        seed: of the images; the law is the same for all seeds.
        shift: of the law; 0.1 is about what a few-step sampler does.
    """
    rng, fixed = np.random.default_rng(seed), np.random.default_rng(1)
    rank = d // 2
    mixing = fixed.standard_normal((rank, d)) * (np.arange(1, rank + 1) ** -0.5)[:, None]
    offset = fixed.normal(0.2, 0.5, d)
    z = rng.standard_normal((n, rank)) + shift * fixed.standard_normal(rank)
    own = rng.standard_normal((n, d)) * 0.1
    return np.maximum(z @ mixing * 0.3 + own + offset, 0).astype(np.float32)
