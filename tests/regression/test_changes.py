"""Flat noise, a step, a drift, an outlier: each is called what it is, at the stated rates."""

import doctest

import numpy as np
import pytest
from numpy.typing import NDArray

from bench.regression import changes
from bench.regression.changes import Story, beta, story

POINTS = 30


def noise(seed: int, points: int = POINTS) -> NDArray[np.float64]:
    return np.random.default_rng(seed).normal(size=points)


def told(values: NDArray[np.float64], series: int = 1) -> Story:
    return story([*values], [1.0] * len(values), series)


def test_doctest() -> None:
    assert doctest.testmod(changes).failed == 0


@pytest.mark.parametrize(("points", "most"), [(2, 0.065), (5, 0.055), (30, 0.04)])
def test_flat_noise_is_seldom_called_anything_else(points: int, most: float) -> None:
    stories = [told(noise(seed, points)) for seed in range(2000)]
    assert np.mean([not each.flat for each in stories]) < most


def test_many_series_share_their_chance_of_error() -> None:
    stories = [told(noise(seed), series=50) for seed in range(2000)]
    assert np.mean([not each.flat for each in stories]) < 0.002
    assert beta(30, 50) > beta(30)


def test_a_step_is_found_where_it_is() -> None:
    step = np.where(np.arange(POINTS) < 12, 0.0, 5.0)
    stories = [told(noise(seed) + step) for seed in range(200)]
    single = [each for each in stories if len(each.steps) == 1 and not each.outliers]
    assert len(single) >= 190
    places = [each.steps[0][1].start for each in single]
    assert np.mean([abs(place - 12) <= 1 for place in places]) > 0.95
    before, after = single[0].steps[0]
    assert before.mean == pytest.approx(0, abs=1.2)
    assert after.mean == pytest.approx(5, abs=1)
    assert before.error == pytest.approx((after.start - 0) ** -0.5)
    assert all(each.drift is None for each in single)


def test_two_steps_are_two() -> None:
    there_and_back = np.where((np.arange(POINTS) >= 10) & (np.arange(POINTS) < 20), 6.0, 0.0)
    stories = [told(noise(seed) + there_and_back) for seed in range(100)]
    assert np.mean([len(each.steps) == 2 for each in stories]) > 0.95


def test_a_slow_drift_is_a_drift() -> None:
    drift = np.linspace(0, 8, POINTS)
    stories = [told(noise(seed) + drift) for seed in range(200)]
    found = [each.drift for each in stories if each.drift is not None]
    assert len(found) >= 190
    assert np.mean([line.first for line in found]) == pytest.approx(0, abs=0.15)
    assert np.mean([line.last for line in found]) == pytest.approx(8, abs=0.15)


def test_an_outlier_is_an_outlier_and_no_step() -> None:
    stories = []
    for seed in range(200):
        values = noise(seed)
        values[14] += 8
        stories.append(told(values))
    right = [each for each in stories if each.outliers == (14,) and not each.steps]
    assert len(right) >= 190
    assert all(each.levels[0].stop == POINTS and not each.flat for each in right)


def test_an_outlier_in_a_drift_leaves_the_drift() -> None:
    values = noise(3) + np.linspace(0, 8, POINTS)
    values[14] += 12
    found = told(values)
    assert found.outliers == (14,)
    assert found.drift is not None


def test_what_ends_a_series_is_a_step_until_it_returns() -> None:
    values = noise(1)
    values[-1] = 8.0
    assert [after.start for _, after in told(values).steps] == [POINTS - 1]
    back = np.concatenate([values, noise(2, 5)])
    assert told(back).outliers == (POINTS - 1,)


def test_errors_are_weighed() -> None:
    values, errors = [1.0, 1.0, 1.0, 2.0, 1.0, 1.0], [0.1] * 6
    assert story(values, errors).outliers == (3,)
    errors[3] = 1.0
    assert story(values, errors).flat


def test_large_values_keep_their_small_errors() -> None:
    values = 1e6 + np.concatenate([np.zeros(5), np.full(5, 1e-3)])
    found = story([*values], [1e-4] * 10)
    assert [after.start for _, after in found.steps] == [5]


@pytest.mark.parametrize("values", [[3.0], [3.0, 3.0], [3.0] * 10])
def test_nothing_happens_to_equal_values(values: list[float]) -> None:
    found = story(values, [0.1] * len(values))
    assert found.flat
    assert found.levels[0].mean == 3.0
