"""Counter-based noise: the k-th draw of sample i is a function of (seed, i, k) and nothing else.

It does not matter which batch, job, device or order of work asks for it, or what was drawn
before. Philox 4x64-10 (numpy's, whose bit stream numpy guarantees) has the seed as its key and
(block, draw, sample, 0) as its counter, so no two (seed, sample, draw) share a block. Its bits
become normals by the Box-Muller transform, in the state's precision and on its device (where that
is not the CPU, the bits too are made there, by `bench.diffusion.philox`): the bits are equal
everywhere, the normals to rounding of log and cos (5e-6 in float32, 1e-14 in float64).

Reference:
    Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3" (Philox).
"""

import math
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor

from bench.diffusion import philox

_BUFFER_EMPTY = 4  # Philox hands out four words a block; 4 says that none is left over
_CACHED = 64  # samples of 3 x 32 x 32 whose intermediate results stay in a core's cache


def normal(
    seed: int,
    samples: Sequence[int],
    draw: int,
    shape: tuple[int, ...],
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Standard normals (len(samples), *shape) of one draw of each sample.

    Args:
        seed: 0 <= seed < 2**64.
        samples: indices of the samples, each in 0..2**64 - 1, in any order.
        draw: number of the draw, >= 0; 0 is the start x_T.
        shape: shape of one sample.
        device: where the normals are made.
        dtype: of the normals; those narrower than float32 are rounded from it.

    Normals reach |z| = 6.7 (31-bit uniforms).
    """
    count = math.prod(shape)
    pairs = (count + 1) // 2
    precision = dtype if dtype == torch.float64 else torch.float32
    if torch.device(device).type == "cpu":
        normals = _on_host(seed, samples, draw, pairs, precision)
    else:
        normals = _on_device(seed, samples, draw, pairs, precision, device)
    return normals[:, :count].reshape(len(samples), *shape).to(dtype)


def _on_host(
    seed: int, samples: Sequence[int], draw: int, pairs: int, precision: torch.dtype
) -> Tensor:
    words = np.empty((len(samples), pairs), dtype=np.uint64)
    generator = np.random.Philox(key=seed)
    state = generator.state
    for row, sample in zip(words, samples, strict=True):
        state["state"]["counter"][:] = (0, draw, sample, 0)
        state["buffer_pos"] = _BUFFER_EMPTY
        generator.state = state
        row[:] = generator.random_raw(pairs)
    bits = torch.from_numpy(words.astype("<u8", copy=False).view("<i4"))
    normals = torch.empty(len(samples), 2 * pairs, dtype=precision)
    for part, out in zip(torch.split(bits, _CACHED), torch.split(normals, _CACHED), strict=True):
        _box_muller(part, out)
    return normals


def _on_device(
    seed: int,
    samples: Sequence[int],
    draw: int,
    pairs: int,
    precision: torch.dtype,
    device: torch.device | str,
) -> Tensor:
    """The same on the device itself: a copy of the bits would wait for the work before it."""
    counter = torch.from_numpy(np.array([seed, draw, *samples], dtype=np.uint64).view(np.int64))
    blocks = torch.arange(1, -(-pairs // 4) + 1, device=device)
    return _compiled()(counter.to(device), blocks, pairs, precision)


@cache
def _compiled() -> Callable[[Tensor, Tensor, int, torch.dtype], Tensor]:
    # Hundreds of small operations: each by itself would be launched for longer than it runs.
    return torch.compile(_of_counter)


def _of_counter(counter: Tensor, blocks: Tensor, pairs: int, precision: torch.dtype) -> Tensor:
    """Normals (B, 2 * pairs) of int64 (seed, draw, sample of each row)."""
    words = philox.words(counter[0], counter[1], counter[2:], blocks)[:, :pairs]
    bits = words.contiguous().view(torch.int32)
    normals = torch.empty(bits.shape, device=bits.device, dtype=precision)
    _box_muller(bits, normals)
    return normals


def _box_muller(bits: Tensor, normals: Tensor) -> None:
    """Writes normals (B, 2 n) from the bits of as many signed 32-bit integers.

    These are the little-endian halves of the words: the first n make radii, the others angles.
    """
    radius_bits, angle_bits = bits.chunk(2, dim=1)
    cosines, sines = normals.chunk(2, dim=1)
    # Uniform in (2^-32, 1], with small values resolved: the normal's tail comes from them.
    uniform = (radius_bits & 0x7FFFFFFF).to(cosines.dtype).add_(0.5).mul_(2.0**-31)
    radius = uniform.log_().mul_(-2.0).sqrt_()
    angle = angle_bits.to(cosines.dtype).mul_(math.pi * 2.0**-31)
    torch.mul(radius, angle.cos(), out=cosines)
    torch.mul(radius, angle.sin_(), out=sines)


class Noise:
    """The draws of a batch of samples, one after another: each call gives the next draw.

    >>> noise = Noise(seed=0, samples=range(4), shape=(3, 32, 32))
    >>> noise().shape, noise.draws
    (torch.Size([4, 3, 32, 32]), 1)
    """

    def __init__(
        self,
        seed: int,
        samples: Sequence[int],
        shape: tuple[int, ...],
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.draws = 0
        self._seed, self._samples, self._shape = seed, samples, shape
        self._device, self._dtype = device, dtype

    def __call__(self) -> Tensor:
        """The next draw, (B, *shape)."""
        draw = normal(
            self._seed,
            self._samples,
            self.draws,
            self._shape,
            device=self._device,
            dtype=self._dtype,
        )
        self.draws += 1
        return draw
