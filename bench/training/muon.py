"""Muon (Jordan, 2024, kellerjordan.github.io/posts/muon): momentum, made semi-orthogonal.

`torch.optim.Muon` takes matrices only and steps through them one by one. Here convolutions are
taken as (out, in x k x k), and what has the same shape is worked on at once.
"""

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor, nn


class Muon(torch.optim.Optimizer):
    """Nesterov momentum whose update is replaced by the nearest semi-orthogonal matrix.

    Args:
        params: of two dimensions and more, the first of which is the output's.
        lr: the spectral norm of an update, roughly; of a matrix of more rows than columns that
            times the root of their ratio. A tensor is read anew at each step, also by a recorded
            one.
        momentum: decay of the mean of the gradients.
        steps: of the Newton-Schulz iteration.
        dtype: of the matrix products.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float | Tensor,
        *,
        momentum: float = 0.95,
        steps: int = 5,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})
        self._steps, self._dtype = steps, dtype

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # takes no closure
        """One step along the gradients that are there."""
        for group in self.param_groups:
            alike = defaultdict(list)
            for p in group["params"]:
                alike[p.shape].append(p)
            for shape, params in alike.items():
                rows = shape[0]
                columns = shape.numel() // rows
                updates = []
                for p in params:
                    mean = self.state[p].setdefault("mean", torch.zeros_like(p))
                    mean.lerp_(p.grad, 1 - group["momentum"])
                    updates.append(p.grad.lerp(mean, group["momentum"]).flatten(1))
                found = orthogonal(torch.stack(updates).to(self._dtype), self._steps)
                change = found.float() * (group["lr"] * max(1.0, rows / columns) ** 0.5)
                for p, part in zip(params, change, strict=True):
                    p.sub_(part.view(shape))


def orthogonal(matrix: Tensor, steps: int) -> Tensor:
    """U V^T, roughly, of each `matrix` = U S V^T (..., m, n), m <= n or not, by Newton-Schulz.

    The coefficients (Jordan, 2024) push singular values quickly into about 0.7..1.2, which is
    near enough for an update's direction.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    x: Tensor = matrix / (matrix.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x
