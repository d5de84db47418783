"""Philox4x64-10 in plain Python, from the paper, to check the bits of `bench.diffusion.noise`.

Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3", section 4.3.
"""

_MASK = 2**64 - 1
_MULTIPLIERS = (0xD2E7470EE14C6C93, 0xCA5A826395121157)
_WEYL = (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)  # golden ratio and sqrt(3) - 1
_ROUNDS = 10

Block = tuple[int, int, int, int]


def philox4x64(counter: Block, key: tuple[int, int]) -> Block:
    """The block of four 64-bit words at `counter`."""
    a, b, c, d = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        first, second = _MULTIPLIERS[0] * a, _MULTIPLIERS[1] * c
        a, b, c, d = (
            (second >> 64) ^ b ^ k0,
            second & _MASK,
            (first >> 64) ^ d ^ k1,
            first & _MASK,
        )
        k0, k1 = (k0 + _WEYL[0]) & _MASK, (k1 + _WEYL[1]) & _MASK
    return a, b, c, d


def words(seed: int, sample: int, draw: int, count: int) -> list[int]:
    """The first `count` words of a draw: blocks 1, 2, ... at (block, draw, sample, 0)."""
    blocks = (
        philox4x64((block, draw, sample, 0), (seed & _MASK, seed >> 64))
        for block in range(1, (count + 3) // 4 + 1)
    )
    return [word for block in blocks for word in block][:count]
