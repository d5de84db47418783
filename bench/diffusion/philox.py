"""Philox 4x64-10 in torch, for the devices where numpy's would have to wait for a copy.

Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3", section 3.3 and the constants of
Random123. torch has no unsigned 64-bit arithmetic; int64 holds the same bits, its products and sums
wrap to the same ones, and the shifts mask off the sign that they bring in.
"""

import torch
from torch import Tensor

_ROUNDS = 10
_MULTIPLIERS = (0xD2E7470EE14C6C93, 0xCA5A826395121157)
_WEYL = (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)
_LOW = 0xFFFFFFFF


def words(key: Tensor, draw: Tensor, samples: Tensor, blocks: Tensor) -> Tensor:
    """Words of the stream of each sample: those of `numpy.random.Philox`.

    Args:
        key: int64 (), the bits of the first word of numpy's key; the second is 0.
        draw: int64 (), those of the second word of the counter.
        samples: int64 (B,), those of the third, on the device where to compute.
        blocks: int64 (n,), which blocks of four words; the first is number 1, because numpy
            counts up before it makes one.

    Returns:
        int64 (B, 4 n), the bits of unsigned words.
    """
    shape = len(samples), len(blocks)
    lanes = [
        blocks.expand(shape),
        draw.expand(shape),
        samples[:, None].expand(shape),
        torch.zeros_like(blocks).expand(shape),
    ]
    key0, key1 = key, torch.zeros_like(key)
    for _ in range(_ROUNDS):
        high0, low0 = _product(_MULTIPLIERS[0], lanes[0])
        high1, low1 = _product(_MULTIPLIERS[1], lanes[2])
        lanes = [high1 ^ lanes[1] ^ key0, low1, high0 ^ lanes[3] ^ key1, low0]
        key0, key1 = key0 + _signed(_WEYL[0]), key1 + _signed(_WEYL[1])
    return torch.stack(lanes, dim=-1).flatten(1)


def _product(a: int, b: Tensor) -> tuple[Tensor, Tensor]:
    """The high and the low word of a * b, both unsigned, by products of halves."""
    a1, a0 = a >> 32, a & _LOW
    b1, b0 = (b >> 32) & _LOW, b & _LOW
    # None of these sums exceeds 2**64 - 1: (2**32 - 1)**2 + 2 (2**32 - 1) is just that.
    middle = a1 * b0 + ((a0 * b0 >> 32) & _LOW)
    other = a0 * b1 + (middle & _LOW)
    return a1 * b1 + ((middle >> 32) & _LOW) + ((other >> 32) & _LOW), _signed(a) * b


def _signed(word: int) -> int:
    """The int64 with the bits of an unsigned word."""
    return word - 2**64 if word >= 2**63 else word
