"""Muon against the singular values and vectors that it approximates."""

import pytest
import torch
from torch import nn

from bench.training.muon import Muon, orthogonal


@pytest.mark.parametrize("shape", [(8, 30), (30, 8), (16, 16)])
def test_orthogonal_keeps_directions_and_levels_their_sizes(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    result = orthogonal(matrix, steps=5)
    sizes = torch.linalg.svdvals(result)
    assert sizes.max() < 1.3
    assert sizes.min() > 0.3
    # In the basis of the matrix's own singular vectors the result is diagonal.
    inside = u.T @ result @ v.T
    assert (inside - inside.diag().diag()).abs().max() < 1e-4


def test_a_step_has_the_size_of_the_rate_whatever_the_gradient() -> None:
    """Of a filter bank as a matrix (out, in x k x k); more rows than columns make it longer."""
    wide, tall = nn.Parameter(torch.zeros(8, 4, 3, 3)), nn.Parameter(torch.zeros(64, 4, 2, 2))
    optimiser = Muon([wide, tall], lr=torch.tensor(0.1))
    for scale in (1e-3, 1e3):
        before = [p.detach().clone() for p in (wide, tall)]
        for p in (wide, tall):
            p.grad = scale * torch.randn(p.shape, generator=torch.Generator().manual_seed(1))
        optimiser.step()
        for p, old, longer in zip((wide, tall), before, (1, 2), strict=True):
            sizes = torch.linalg.svdvals((p - old).flatten(1)) / (0.1 * longer)
            assert 0.3 < sizes.min() <= sizes.max() < 1.3
            assert p.grad is not None
            assert (p.grad * (p - old)).sum() < 0


def test_parameters_of_one_shape_do_not_mix() -> None:
    def stepped(*scales: float) -> list[torch.Tensor]:
        params = [nn.Parameter(torch.zeros(6, 10)) for _ in scales]
        for i, (p, scale) in enumerate(zip(params, scales, strict=True)):
            p.grad = scale * torch.randn(p.shape, generator=torch.Generator().manual_seed(i))
        Muon(params, lr=0.1).step()
        return [p.detach() for p in params]

    assert torch.allclose(stepped(1.0, 1.0)[0], stepped(1.0, 1e6)[0])
