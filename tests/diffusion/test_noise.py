"""Noise is a function of (seed, sample, draw), bit for bit, and standard normal."""

import hashlib
import itertools
import math
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy import stats

from bench.diffusion import noise, philox
from bench.diffusion.noise import Noise, normal
from tests.diffusion.philox import philox4x64, words

IMAGE = (3, 32, 32)
# A false alarm of five standard errors is a matter of 6e-7; numbers are fixed by their seeds.
ERRORS = 5.0


# --- the bits ---


def test_the_philox_of_the_tests_gives_the_published_answers() -> None:
    """Random123's known-answer vectors for philox4x64 with 10 rounds."""
    ones = 2**64 - 1
    assert philox4x64((0, 0, 0, 0), (0, 0)) == (
        *(0x16554D9ECA36314C, 0xDB20FE9D672D0FDC, 0xD7E772CEE186176B, 0x7E68B68AEC7BA23B),
    )
    assert philox4x64((ones,) * 4, (ones, ones)) == (
        *(0x87B092C3013FE90B, 0x438C3C67BE8D0224, 0x9CC7D7C69CD777B6, 0xA09CAEBF594F0BA0),
    )
    counter = (0x243F6A8885A308D3, 0x13198A2E03707344, 0xA4093822299F31D0, 0x082EFA98EC4E6C89)
    assert philox4x64(counter, (0x452821E638D01377, 0xBE5466CF34E90C6C)) == (
        *(0xA528F45403E61D95, 0x38C72DBD566E9788, 0xA5A1610E72FD18B5, 0x57BD43B5E52B7FE6),
    )


def by_hand(seed: int, sample: int, draw: int, count: int, *, single: bool) -> list[float]:
    """The normals of one draw from the independent Philox, in Python's floats.

    With `single` the uniform is rounded to float32, as it is for float32 noise.
    """
    pairs = (count + 1) // 2
    raw = words(seed, sample, draw, pairs)
    halves = [half for word in raw for half in (word & 0xFFFFFFFF, word >> 32)]
    radii = [(half & 0x7FFFFFFF) + 0.5 for half in halves[:pairs]]
    if single:
        radii = [float(np.float32(value)) for value in radii]
    radius = [math.sqrt(-2 * math.log(value / 2**31)) for value in radii]
    angle = [(v - 2**32 if v >= 2**31 else v) * math.pi / 2**31 for v in halves[pairs:]]
    cosines = [r * math.cos(v) for r, v in zip(radius, angle, strict=True)]
    return (cosines + [r * math.sin(v) for r, v in zip(radius, angle, strict=True)])[:count]


@pytest.mark.parametrize(
    ("seed", "sample", "draw"),
    [(0, 0, 0), (0, 1, 0), (0, 0, 1), (7, 49_999, 1000), (2**64 - 1, 2**40, 3), (1, 2**64 - 1, 0)],
)
@pytest.mark.parametrize("count", [1, 2, 3, 7, 192])
def test_normals_are_box_muller_of_philox(seed: int, sample: int, draw: int, count: int) -> None:
    for dtype, atol in [(torch.float32, 2e-6), (torch.float64, 1e-13)]:
        found = normal(seed, [sample], draw, (count,), dtype=dtype)[0]
        hand = by_hand(seed, sample, draw, count, single=dtype == torch.float32)
        expected = torch.tensor(hand, dtype=torch.float64)
        torch.testing.assert_close(found.double(), expected, rtol=0, atol=atol)


def test_pinned_values() -> None:
    """Whoever changes these changes every image of every sweep."""
    pinned = [0.1225668, -1.8216864, 1.3231009, 2.3061439, 2.0537444, 1.1146797]
    assert normal(0, [0], 0, (6,))[0].tolist() == pytest.approx(pinned, abs=2e-6)


# --- the same numbers, whatever asks for them ---

# Odd sizes: the last elements of a buffer go through other vector code than the others.
SIZES = [(1,), (2,), (3,), (5,), (7,), (31,), (33,), (3, 7, 9), (3, 11, 11), (1023,), IMAGE]


@pytest.mark.parametrize("shape", SIZES)
def test_a_sample_does_not_see_its_neighbours(shape: tuple[int, ...]) -> None:
    batch = normal(3, range(37), 2, shape)
    for low, high in [(0, 1), (1, 2), (3, 10), (5, 36), (36, 37), (11, 24)]:
        assert torch.equal(normal(3, range(low, high), 2, shape), batch[low:high])
    backwards = normal(3, list(range(36, -1, -1)), 2, shape)
    assert torch.equal(backwards.flip(0), batch)
    scattered = [5, 5, 30, 0]
    assert torch.equal(normal(3, scattered, 2, shape), batch[scattered])


@pytest.mark.parametrize("shape", [(3,), (1023,), (3, 11, 11), IMAGE])
def test_threads_change_nothing(shape: tuple[int, ...]) -> None:
    single = normal(3, range(200), 1, shape)
    for threads in (2, 3):
        torch.set_num_threads(threads)
        assert torch.equal(normal(3, range(200), 1, shape), single)


def test_the_order_of_draws_and_a_restart_change_nothing() -> None:
    noise = Noise(4, range(5), IMAGE)
    draws = [noise() for _ in range(4)]
    assert noise.draws == 4
    for k in (3, 0, 2, 1):
        assert torch.equal(normal(4, range(5), k, IMAGE), draws[k])
    again = Noise(4, range(2, 5), IMAGE)
    for k in range(4):
        assert torch.equal(again(), draws[k][2:])


def test_a_new_process_changes_nothing() -> None:
    code = (
        "import hashlib; from bench.diffusion.noise import normal; "
        "print(hashlib.sha256(normal(9, [3, 1], 2, (3, 11, 11)).numpy().tobytes()).hexdigest())"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    here = hashlib.sha256(normal(9, [3, 1], 2, (3, 11, 11)).numpy().tobytes()).hexdigest()
    assert run.stdout.strip() == here


def test_global_generators_are_neither_read_nor_moved() -> None:
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002 - the global state is what this is about
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[index, union-attr] # noqa: NPY002
    first = normal(0, range(3), 0, IMAGE)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()  # type: ignore[index] # noqa: NPY002
    torch.manual_seed(1)
    assert torch.equal(normal(0, range(3), 0, IMAGE), first)


def test_precisions_are_roundings_of_the_same_numbers() -> None:
    """A cell in bfloat16 and one in float64 start from the same x_T."""
    double = Noise(0, range(40), IMAGE, dtype=torch.float64)()
    single = Noise(0, range(40), IMAGE)()
    assert (double.dtype, single.dtype) == (torch.float64, torch.float32)
    # A radius near 0 comes from a uniform near 1, where float32 has steps of 6e-8.
    torch.testing.assert_close(single.double(), double, rtol=0, atol=2e-4)
    assert float((single - double).abs().mean()) < 1e-7
    assert torch.equal(Noise(0, range(40), IMAGE, dtype=torch.bfloat16)(), single.bfloat16())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_size_of_a_batch_changes_nothing(dtype: torch.dtype) -> None:
    """Also where a batch is worked through in blocks: 300 samples of an odd size."""
    shape = (3, 5, 7)
    batch = normal(3, range(300), 1, shape, dtype=dtype)
    for size in (1, 7, 32, 100):
        parts = [
            normal(3, range(low, min(low + size, 300)), 1, shape, dtype=dtype)
            for low in range(0, 300, size)
        ]
        assert torch.equal(torch.cat(parts), batch)


def test_no_samples_are_no_noise() -> None:
    assert normal(0, [], 0, IMAGE).shape == (0, *IMAGE)


def test_every_coordinate_of_seed_sample_and_draw_matters() -> None:
    drawn = [
        tuple(normal(seed, [sample], draw, (4,))[0].tolist())
        for seed, sample, draw in itertools.product([0, 1, 2**32, 2**63], repeat=3)
    ]
    assert len(set(drawn)) == 64


@pytest.mark.gpu
def test_a_gpu_gives_the_same_numbers_but_for_rounding() -> None:
    here = normal(3, range(500), 2, IMAGE)
    there = normal(3, range(500), 2, IMAGE, device="cuda")
    assert there.device.type == "cuda"
    torch.testing.assert_close(there.cpu(), here, rtol=0, atol=2e-6)
    alone = normal(3, [123], 2, IMAGE, device="cuda")
    assert torch.equal(alone[0], there[123])


# --- normality ---


@pytest.fixture(scope="module")
def many() -> npt.NDArray[np.float64]:
    """1.5 million numbers as a sweep draws them: (500 samples, an image)."""
    return normal(21, range(500), 0, IMAGE).flatten(1).double().numpy()


def test_distribution_is_normal(many: npt.NDArray[np.float64]) -> None:
    assert stats.kstest(many.ravel(), "norm").pvalue > 1e-4
    # Both halves of the transform alone: cosines first, then sines.
    half = many.shape[1] // 2
    assert stats.kstest(many[:, :half].ravel(), "norm").pvalue > 1e-4
    assert stats.kstest(many[:, half:].ravel(), "norm").pvalue > 1e-4


@pytest.mark.parametrize(
    ("power", "moment", "of_square"),
    [(1, 0, 1), (2, 1, 3), (3, 0, 15), (4, 3, 105), (5, 0, 945), (6, 15, 10395)],
)
def test_moments_up_to_the_sixth(
    many: npt.NDArray[np.float64], power: int, moment: float, of_square: float
) -> None:
    error = math.sqrt((of_square - moment**2) / many.size)
    assert float((many**power).mean()) == pytest.approx(moment, abs=ERRORS * error)


def test_every_position_has_mean_0_and_variance_1(many: npt.NDArray[np.float64]) -> None:
    count, positions = many.shape
    scores = many.mean(0) * math.sqrt(count)
    assert stats.kstest(scores, "norm").pvalue > 1e-4
    spreads = (many**2).sum(0)
    assert stats.kstest(spreads, "chi2", args=(count,)).pvalue > 1e-4
    assert abs(scores).max() < stats.norm.isf(1e-4 / positions)


def test_tails_have_the_counts_they_should() -> None:
    """Beyond 5 sigma a coarse uniform would show: 2^-24 ends at 5.77, these end at 6.66."""
    numbers = normal(22, range(200), 1, (100_000,))
    size = numbers.abs()
    assert float(size.max()) < 6.67
    for bound in (3.0, 4.0, 4.5, 5.0, 5.3):
        expected = 2 * stats.norm.sf(bound) * numbers.numel()
        found = int((size > bound).sum())
        low, high = stats.poisson.interval(1 - 1e-5, expected)
        assert low <= found <= high, (bound, found, expected)
        above = int((numbers > bound).sum())
        low, high = stats.poisson.interval(1 - 1e-5, expected / 2)
        assert low <= above <= high, (bound, above, expected / 2)


def test_the_smallest_and_the_largest_uniform_give_finite_normals(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Radius bits 0 and 2^31 - 1, at either half of a word."""
    real = np.random.Philox

    class Rigged:
        def __init__(self, key: int) -> None:
            self.state = real(key=key).state

        def random_raw(self, size: int) -> npt.NDArray[np.uint64]:
            rigged = [0x7FFFFFFF_00000000, 0x00000000_FFFFFFFF]  # radii first, then angles
            return np.array(rigged, dtype=np.uint64)[:size]

    monkeypatch.setattr(np.random, "Philox", Rigged)
    found = normal(0, [0], 0, (4,))[0]
    assert found.isfinite().all()
    # Radius 6.66 with the angle -pi 2^-31, and radius 0.
    assert found.abs().max() == pytest.approx(math.sqrt(-2 * math.log(2.0**-32)), rel=1e-6)
    assert found.tolist()[1] == 0.0


# --- independence ---

Pair = Callable[[], tuple[torch.Tensor, torch.Tensor]]


def image(seed: int, samples: range, draw: int) -> torch.Tensor:
    return normal(seed, samples, draw, IMAGE).flatten(1)


R = range(200)
HALF = 1536
PAIRS: dict[str, Pair] = {
    "neighbouring samples": lambda: (image(1, R, 0), image(1, range(1, 201), 0)),
    "distant samples": lambda: (image(1, R, 0), image(1, range(2**32, 2**32 + 200), 0)),
    "neighbouring draws": lambda: (image(1, R, 0), image(1, R, 1)),
    "distant draws": lambda: (image(1, R, 0), image(1, R, 999)),
    "neighbouring seeds": lambda: (image(1, R, 0), image(2, R, 0)),
    "distant seeds": lambda: (image(1, R, 0), image(1 + 2**40, R, 0)),
    "sample and draw swapped": lambda: (image(1, range(1, 2), 0), image(1, range(1), 1)),
    "neighbouring positions": lambda: (image(1, R, 0)[:, :-1], image(1, R, 0)[:, 1:]),
    "positions two apart": lambda: (image(1, R, 0)[:, :-2], image(1, R, 0)[:, 2:]),
    "neighbouring blocks": lambda: (image(1, R, 0)[:, :-8], image(1, R, 0)[:, 8:]),
    "cosine and sine of a pair": lambda: (image(1, R, 0)[:, :HALF], image(1, R, 0)[:, HALF:]),
    "colours": lambda: (image(1, R, 0)[:, :1024], image(1, R, 0)[:, 1024:2048]),
}


@pytest.mark.parametrize("name", PAIRS)
def test_independent(name: str) -> None:
    """Correlations of x, of x^2 (a shared radius), of |x| and of signs, each within 5 errors."""
    x, y = (part.double().flatten() for part in PAIRS[name]())
    assert not torch.equal(x, y)
    count = x.numel()
    features: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
        "x": lambda v: v,
        "x^2": lambda v: (v**2 - 1) / math.sqrt(2),
        "|x|": lambda v: (v.abs() - math.sqrt(2 / math.pi)) / math.sqrt(1 - 2 / math.pi),
        "sign": torch.sign,
    }
    for first, f in features.items():
        for second, g in features.items():
            score = float((f(x) * g(y)).sum()) / math.sqrt(count)
            assert abs(score) < ERRORS, (first, second, score)


def test_the_covariance_over_samples_is_the_identity() -> None:
    """No pair of 96 positions, halves and colours included, moves together over 4,000 samples."""
    numbers = normal(31, range(4000), 0, (96,)).double()
    covariance = numbers.T @ numbers / len(numbers)
    scores = (covariance - torch.eye(96)) * math.sqrt(len(numbers))
    off_diagonal = scores[~torch.eye(96, dtype=torch.bool)]
    assert float(off_diagonal.abs().max()) < ERRORS
    assert stats.kstest(off_diagonal.numpy()[::2], "norm").pvalue > 1e-4


# --- made on the device ---


@pytest.mark.parametrize("seed", [0, 2**63 + 5, 2**64 - 1])
@pytest.mark.parametrize("draw", [0, 3])
def test_words_in_torch_are_those_of_the_independent_philox(seed: int, draw: int) -> None:
    samples = [0, 1, 77, 2**62, 2**64 - 1]
    bits = torch.from_numpy(np.array([seed, draw, *samples], dtype=np.uint64).view(np.int64))
    made = philox.words(bits[0], bits[1], bits[2:], torch.arange(1, 4)).numpy().view(np.uint64)
    assert made.tolist() == [words(seed, sample, draw, 12) for sample in samples]


@pytest.mark.parametrize("count", [6, 7, 3072])
def test_what_a_device_makes_is_what_the_host_makes(count: int) -> None:
    """By the function that is compiled for a device, here without a compiler."""
    pairs, samples = (count + 1) // 2, range(5, 9)
    counter = torch.from_numpy(np.array([9, 2, *samples], dtype=np.uint64).view(np.int64))
    blocks = torch.arange(1, -(-pairs // 4) + 1)
    made = noise._of_counter(counter, blocks, pairs, torch.float32)
    expected = normal(9, samples, 2, (count,))
    assert torch.equal(made[:, :count], expected)


@pytest.mark.gpu
def test_noise_is_the_same_on_a_gpu() -> None:
    here, there = (normal(2**63 + 5, range(3, 70), 7, IMAGE, device=d) for d in ("cpu", "cuda"))
    assert (here - there.cpu()).abs().max() < 5e-6
