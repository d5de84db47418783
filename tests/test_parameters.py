"""Parameters read from signatures, and every message about a wrong value."""

import math
from typing import Annotated, Literal

import pytest
from annotated_types import Ge, Gt, Le, Lt

from bench.errors import SweepError
from bench.parameters import Parameter, as_keywords, complete, parameters_of, written


def example(
    denoise: object,
    *,
    eta: Annotated[float, Ge(0), Le(1)] | Literal["sigma-hat"] = 0.0,
    order: Annotated[int, Ge(1), Lt(4)] = 2,
    lower_order_final: Literal["never", "always"] = "never",
    clip: bool = False,
    sigma_min: Annotated[float, Gt(0)] | None = None,
    times: tuple[float, ...] = (),
    note: str = "",
) -> None:
    """A function with a parameter of every type."""


def choosy(x: object, *, variance: Literal["small", "large"]) -> None:
    """A function whose parameter has no default."""


DECLARED = parameters_of(example)


def message(name: str, value: object) -> str:
    with pytest.raises(SweepError) as caught:
        DECLARED[name].validate(value)
    return str(caught.value)


def test_keyword_only_arguments_are_the_parameters_with_dashes() -> None:
    assert list(DECLARED) == [
        *("eta", "order", "lower-order-final", "clip", "sigma-min", "times", "note"),
    ]
    assert DECLARED["lower-order-final"].name == "lower-order-final"
    assert DECLARED["order"].default == 2
    assert not DECLARED["order"].required
    assert parameters_of(choosy)["variance"].required


def test_defaults_fill_what_is_not_given() -> None:
    assert complete("x", DECLARED, {"eta": 1}) == {
        "eta": 1.0,
        "order": 2,
        "lower-order-final": "never",
        "clip": False,
        "sigma-min": None,
        "times": (),
        "note": "",
    }
    assert as_keywords({"lower-order-final": "never", "eta": 0.5}) == {
        "lower_order_final": "never",
        "eta": 0.5,
    }


@pytest.mark.parametrize(
    ("name", "value", "canonical"),
    [
        ("eta", 0, 0.0),
        ("eta", 1, 1.0),
        ("eta", 0.25, 0.25),
        ("eta", "sigma-hat", "sigma-hat"),
        ("order", 1, 1),
        ("order", 3.0, 3),
        ("clip", True, True),
        ("sigma-min", None, None),
        ("sigma-min", 2, 2.0),
        ("times", [3, 2.5, 1], (3.0, 2.5, 1.0)),
        ("note", "1", "1"),
    ],
)
def test_one_canonical_form_for_what_means_the_same(
    name: str, value: object, canonical: object
) -> None:
    """A cell's key is a digest of these: 1 and 1.0 must not be two cells."""
    found = DECLARED[name].validate(value)
    assert found == canonical
    assert type(found) is type(canonical)
    if isinstance(found, tuple):
        assert {type(item) for item in found} == {float}


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("eta", -0.1, 'eta is -0.1; expected a number at least 0 and at most 1 or "sigma-hat".'),
        ("eta", 2, 'eta is 2; expected a number at least 0 and at most 1 or "sigma-hat".'),
        (
            "eta",
            "half",
            'eta is the text "half"; expected a number at least 0 and at most 1 or "sigma-hat".',
        ),
        (
            "eta",
            "0.5",
            'eta is the text "0.5"; expected a number at least 0 and at most 1 or "sigma-hat".',
        ),
        ("eta", True, 'eta is true; expected a number at least 0 and at most 1 or "sigma-hat".'),
        ("eta", None, 'eta is nothing; expected a number at least 0 and at most 1 or "sigma-hat".'),
        ("eta", math.nan, 'eta is nan; expected a number at least 0 and at most 1 or "sigma-hat".'),
        ("order", 0, "order is 0; expected a whole number at least 1 and below 4."),
        ("order", 4, "order is 4; expected a whole number at least 1 and below 4."),
        ("order", 1.5, "order is 1.5; expected a whole number at least 1 and below 4."),
        ("order", math.inf, "order is inf; expected a whole number at least 1 and below 4."),
        (
            "order",
            "two",
            'order is the text "two"; expected a whole number at least 1 and below 4.',
        ),
        ("clip", "yes", 'clip is the text "yes"; expected true or false.'),
        ("clip", 1, "clip is 1; expected true or false."),
        ("sigma-min", 0, "sigma-min is 0; expected a number above 0 or nothing."),
        ("times", 3, "times is 3; expected a list of numbers."),
        ("times", [1, "x"], "times is [1, 'x']; expected a list of numbers."),
        ("note", 3, "note is 3; expected a text."),
        (
            "lower-order-final",
            False,
            'lower-order-final is false; expected "never" or "always".',
        ),
    ],
)
def test_a_wrong_value_is_quoted_with_what_was_expected(
    name: str, value: object, expected: str
) -> None:
    assert message(name, value) == expected


def test_a_number_just_outside_is_shown_in_full() -> None:
    """Rounded to six digits it would read "eta is 1; expected at most 1"."""
    assert message("eta", 1.0000001).startswith("eta is 1.0000001; expected")


def test_an_unknown_name_comes_with_the_nearest() -> None:
    with pytest.raises(SweepError) as caught:
        complete('sampler "ddim"', DECLARED, {"etta": 1})
    assert str(caught.value) == (
        'sampler "ddim" has no parameter "etta". Did you mean "eta"? '
        "It has: eta, order, lower-order-final, clip, sigma-min, times, note."
    )
    with pytest.raises(SweepError) as caught:
        complete('sampler "euler"', {}, {"eta": 1})
    assert str(caught.value) == 'sampler "euler" has no parameter "eta". It has: none.'


def test_a_missing_choice_is_asked_for() -> None:
    with pytest.raises(SweepError) as caught:
        complete('sampler "ddpm"', parameters_of(choosy), {})
    assert str(caught.value) == 'sampler "ddpm" needs "variance": "small" or "large".'


@pytest.mark.parametrize(
    ("annotation", "examples"),
    [
        (Literal["never", "always"], ["never", "always"]),
        (bool, [False, True]),
        (Annotated[int, Ge(1), Le(4)], [1, 2, 3, 4]),
        (Annotated[int, Ge(1), Lt(4)], [1, 2, 3]),
        (Annotated[int, Ge(1), Le(1000)], [1, 1000]),
        (Annotated[int, Ge(2)], [2, 3]),
        (Annotated[float, Ge(0), Le(1)], [0.0, 1.0]),
        (Annotated[float, Ge(0)], [0.0, 1.0]),
        (Annotated[float, Gt(0)], [1.0]),
        (Annotated[float, Lt(2)], [1.0]),
        (Annotated[float, Gt(0)] | None, [1.0, None]),
        (Annotated[float, Ge(0), Le(1)] | Literal["sigma-hat"], [0.0, 1.0, "sigma-hat"]),
        (tuple[float, ...], []),
        (str, []),
    ],
)
def test_examples_are_a_choice_or_the_ends_of_a_range(annotation: object, examples: list) -> None:
    parameter = Parameter("x", annotation, None)
    assert parameter.examples == examples
    assert [type(value) for value in parameter.examples] == [type(value) for value in examples]
    assert all(parameter.validate(value) == value for value in examples)


@pytest.mark.parametrize(
    ("value", "text"),
    [(7.0, "7"), (0.002, "0.002"), (True, "true"), (None, "nothing"), ("slow", "slow"), (3, "3")],
)
def test_written_as_in_a_sweep(value: object, text: str) -> None:
    assert written(value) == text
