import doctest
import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from bench.report import ties
from bench.report.ties import Verdict, judge

TRIALS = 4000


def test_doctests() -> None:
    assert doctest.testmod(ties).failed == 0


def independent(errors: list[float]) -> Callable[[int, int], float]:
    return lambda i, j: math.hypot(errors[i], errors[j])


@pytest.mark.parametrize(
    ("values", "errors", "higher", "expected"),
    [
        ([3.0, 4.0], [0.1, 0.1], False, Verdict(True, (0,))),
        ([3.0, 4.0], [0.1, 0.1], True, Verdict(True, (1,))),
        ([-3.0, -4.0, 1.0], [0.1, 0.1, 0.1], False, Verdict(True, (1,))),
        ([3.2, 9.0, 3.0, 3.1], [0.1] * 4, False, Verdict(False, (2, 3, 0))),
        ([3.0, 3.0], [0.0, 0.0], False, Verdict(False, (0, 1))),  # equal is not beyond anything
        ([3.0, 3.1], [0.0, 0.0], False, Verdict(True, (0,))),
        ([3.0, 3.1], [0.1, 5.0], False, Verdict(False, (0, 1))),
        ([3.0, 9.0, 99.0], [0.1, 0.1, math.nan], False, None),
        ([3.0], [0.1], False, None),
        ([], [], False, None),
    ],
)
def test_verdicts(
    values: list[float], errors: list[float], higher: bool, expected: Verdict | None
) -> None:
    assert judge(values, errors, independent(errors), higher=higher) == expected


def test_the_margin_grows_with_the_number_of_comparisons() -> None:
    apart = 2.5 * math.sqrt(2)  # standard errors of the difference: 2.5
    assert judge([0, apart], [1.0] * 2, independent([1.0] * 2)) == Verdict(True, (0,))
    many = [0, *[apart] * 20]
    found = judge(many, [1.0] * 21, independent([1.0] * 21))
    assert found is not None
    assert len(found.among) == 21


def test_an_error_from_few_seeds_needs_a_wider_margin() -> None:
    values, errors = [0.0, 4.0], [1.0, 1.0]
    assert judge(values, errors, independent(errors)) == Verdict(True, (0,))
    found = judge(values, errors, independent(errors), freedom=2)
    assert found == Verdict(False, (0, 1))


def rate(
    draw: Callable[[np.random.Generator], NDArray[np.float64]],
    error: Callable[[int, int], float],
    hit: Callable[[Verdict], bool],
) -> float:
    rng = np.random.default_rng(0)
    drawn = [list(draw(rng)) for _ in range(TRIALS)]
    found = [judge(values, [1.0] * len(values), error) for values in drawn]
    return sum(verdict is not None and hit(verdict) for verdict in found) / TRIALS


def spread(chance: float) -> float:
    """Three standard errors of a rate over the trials."""
    return 3 * math.sqrt(chance * (1 - chance) / TRIALS)


@pytest.mark.parametrize("candidates", [2, 3, 8, 30])
@pytest.mark.parametrize("shared", [0.0, 0.99], ids=["independent", "paired"])
def test_equal_candidates_have_a_false_winner_in_one_of_twenty_at_most(
    candidates: int, shared: float
) -> None:
    def draw(rng: np.random.Generator) -> NDArray[np.float64]:
        own = rng.normal(size=candidates)
        return math.sqrt(shared) * rng.normal() + math.sqrt(1 - shared) * own

    apart = math.sqrt(2 * (1 - shared))
    found = rate(draw, lambda i, j: apart, lambda verdict: verdict.beyond)
    assert found <= ties.LEVEL + spread(ties.LEVEL)
    if candidates == 2:  # here the bound is reached
        assert found == pytest.approx(ties.LEVEL, abs=spread(ties.LEVEL))


@pytest.mark.parametrize("candidates", [2, 8, 30])
def test_the_true_best_is_hardly_ever_told_apart_from_the_best(candidates: int) -> None:
    means = np.linspace(0, 2, candidates)

    def draw(rng: np.random.Generator) -> NDArray[np.float64]:
        return means + rng.normal(size=candidates)

    missed = rate(draw, lambda i, j: math.sqrt(2), lambda verdict: 0 not in verdict.among)
    assert missed <= 0.025 + spread(0.025)


def test_a_clear_winner_is_found_and_a_tie_at_the_top_stays_one() -> None:
    def clear(rng: np.random.Generator) -> NDArray[np.float64]:
        return np.array([0.0, 7.0, 8.0, 9.0]) + rng.normal(size=4)

    def tie(rng: np.random.Generator) -> NDArray[np.float64]:
        return np.array([0.0, 0.0, 12.0, 12.0]) + rng.normal(size=4)

    def error(i: int, j: int) -> float:
        return math.sqrt(2)

    found = rate(clear, error, lambda verdict: verdict == Verdict(True, (0,)))
    assert found > 0.98
    found = rate(tie, error, lambda verdict: sorted(verdict.among) == [0, 1])
    assert found > 0.97


def test_few_seeds_give_no_more_false_winners_than_many() -> None:
    rng = np.random.default_rng(1)
    false = 0
    for _ in range(TRIALS):
        draws = rng.normal(size=(4, 3))
        errors = list(draws.std(axis=1, ddof=1) / math.sqrt(3))
        verdict = judge(list(draws.mean(axis=1)), errors, independent(errors), freedom=2)
        false += verdict is not None and verdict.beyond
    assert false / TRIALS <= ties.LEVEL + spread(ties.LEVEL)
