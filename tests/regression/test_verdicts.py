import doctest
import math
from dataclasses import replace

import numpy as np
import pytest

from bench.regression import verdicts
from bench.regression.verdicts import BETTER, SAME, UNDECIDED, WORSE, Difference, holm, judge

CLEAR = Difference(value=0.4, error=0.02, base=4.0, images=1000)


def test_doctest() -> None:
    assert doctest.testmod(verdicts).failed == 0


@pytest.mark.parametrize(
    ("value", "higher", "word"),
    [(0.4, False, WORSE), (-0.4, False, BETTER), (0.4, True, BETTER), (-0.4, True, WORSE)],
)
def test_which_way_is_better_is_the_metrics(value: float, higher: bool, word: str) -> None:
    (found,) = judge([replace(CLEAR, value=value, higher=higher)])
    assert found.word == word
    assert found.matters
    assert found.needs is None


def test_a_change_below_the_threshold_is_told_and_does_not_matter() -> None:
    (found,) = judge([replace(CLEAR, value=0.03, error=0.001)])
    assert (found.word, found.matters) == (WORSE, False)
    (found,) = judge([replace(CLEAR, value=0.03, error=0.001)], threshold=0.005)
    assert (found.word, found.matters) == (WORSE, True)


def test_the_same_means_that_the_interval_fits_between_the_thresholds() -> None:
    (found,) = judge([replace(CLEAR, value=0.01, error=0.01)])
    assert found.word == SAME
    assert found.within == pytest.approx((0.01 + 1.96 * 0.01) / 4, rel=1e-3)
    (found,) = judge([replace(CLEAR, value=0.01, error=0.02)])  # 0.049 of 0.040
    assert found.word == UNDECIDED


@pytest.mark.parametrize("value", [0.0, 0.01, 0.02, 0.03, 0.05])
def test_undecided_ends_at_as_many_images_as_it_says(value: float) -> None:
    open_ = replace(CLEAR, value=value, error=0.04)
    (found,) = judge([open_])
    assert found.word == UNDECIDED
    assert found.needs is not None
    for images, decided in ((found.needs, True), (0.97 * found.needs, False)):
        error = open_.error * math.sqrt(open_.images / images)
        (later,) = judge([replace(open_, error=error * (1 - 1e-9))])
        assert (later.word != UNDECIDED) == decided


def test_more_comparisons_ask_for_more() -> None:
    just = replace(CLEAR, value=0.05)  # 2.5 standard errors
    assert judge([just])[0].word == WORSE
    others = [replace(CLEAR, value=0.0)] * 9
    assert judge([just, *others])[0].word != WORSE
    # Equal images are no question of noise.
    same = [replace(other, identical=True) for other in others]
    found = judge([just, *same])
    assert found[0].word == WORSE
    assert {verdict.word for verdict in found[1:]} == {SAME}
    assert {verdict.within for verdict in found[1:]} == {0.0}


def test_holm_finds_what_bonferroni_misses() -> None:
    ps = [0.001, 0.02, 0.5]
    assert holm(ps) == pytest.approx([0.003, 0.04, 0.5])
    assert holm(ps[::-1]) == pytest.approx([0.5, 0.04, 0.003])
    assert holm([]) == []
    assert holm([0.9, 0.8]) == [1.0, 1.0]


def test_without_an_error_nothing_is_decided() -> None:
    unknown, known = judge([replace(CLEAR, error=math.nan), CLEAR])
    assert (unknown.word, unknown.needs, unknown.matters) == (UNDECIDED, None, False)
    assert known.word == WORSE


def test_few_degrees_of_freedom_ask_for_more() -> None:
    three = replace(CLEAR, value=0.06)
    assert judge([three])[0].word == WORSE
    assert judge([replace(three, freedom=2)])[0].word == UNDECIDED


def test_a_value_of_nothing_is_no_division_by_zero() -> None:
    found = judge([replace(CLEAR, base=0.0), replace(CLEAR, base=0.0, value=0.0)])
    assert [verdict.word for verdict in found] == [WORSE, UNDECIDED]


@pytest.mark.parametrize("correlation", [0.0, 0.9])
def test_where_nothing_changed_a_sweep_seldom_says_so(correlation: float) -> None:
    rng = np.random.default_rng(0)
    sweeps, cells = 1000, 12
    shared = rng.normal(size=(sweeps, 1))
    own = rng.normal(size=(sweeps, cells))
    z = math.sqrt(correlation) * shared + math.sqrt(1 - correlation) * own
    alarms = sum(
        any(v.word in (BETTER, WORSE) for v in judge([replace(CLEAR, value=0.02 * x) for x in row]))
        for row in z.tolist()
    )
    # At 5 % by design where cells are independent, with three Monte-Carlo errors of 0.7 %.
    assert alarms / sweeps < 0.071
    if correlation == 0.0:
        assert alarms / sweeps > 0.029
