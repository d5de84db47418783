import doctest
import math

import pytest

from bench.report import markdown
from bench.report.content import Footnotes, Place, Table
from bench.report.markdown import Scale, calls, digits, escape, listed, table, times
from bench.report.pooled import Pooled


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("fd_cifar", "fd_cifar"),
        ("_x_", r"\_x\_"),
        ("a | b", r"a \| b"),
        ("<script>alert(1)</script>", "&lt;script&gt;alert(1)&lt;/script&gt;"),
        ("AT&T &lt;", "AT&amp;T &amp;lt;"),
        ("`$x$` **y** [z](u) ~~no~~", r"\`\$x\$\` \*\*y\*\* \[z\](u) \~\~no\~\~"),
        ("two\nlines\r\n\x00\x1b[31m", r"two lines \[31m"),
        ("Ünïcode 雪 η", "Ünïcode 雪 η"),
        ("back\\slash #", r"back\\slash \#"),
    ],
)
def test_escape(text: str, safe: str) -> None:
    assert escape(text) == safe


def test_table() -> None:
    assert table(["NFE", "a"], [["5", "1.00"]]) == "| NFE | a |\n| :--- | ---: |\n| 5 | 1.00 |"


@pytest.mark.parametrize(
    ("value", "text"),
    [(13.357, "13.4"), (4.0, "4.00"), (0.013, "0.0130"), (366.6, "367"), (999.7, "1000"),
     (1234.5, "1234"), (0.0, "0"), (2.5e7, "2.50e+07"), (-3.0, "-3.00")],
)  # fmt: skip
def test_three_significant_digits(value: float, text: str) -> None:
    assert digits(value) == text


@pytest.mark.parametrize(
    ("values", "words", "shown"),
    [
        ([0.0061, 0.000013], "× 10⁻³", "6.10"),
        ([13.36, 0.01], "", "13.4"),
        ([0.1], "", "0.100"),
        ([2.0e6], "× 10⁶", "2.00"),
        ([4.3e-4], "× 10⁻⁶", "430"),
        ([math.nan], "", "nan"),
        ([], "", ""),
    ],
)
def test_scale_is_a_power_of_a_thousand(values: list[float], words: str, shown: str) -> None:
    scale = Scale.of(values)
    assert scale.words == words
    assert [scale.show(value) for value in values[:1]] == ([shown] if values else [])


@pytest.mark.parametrize(
    ("mean", "error", "text"),
    [
        (4.17, math.nan, "4.17"),
        (math.nan, math.nan, "—"),
        (7.3123, 0.0431, "7.312 ± 0.043"),
        (4.17, 0.52, "4.17 ± 0.52"),
        (4.17, 5.2, "4.2 ± 5.2"),
        (417.3, 52.4, "417 ± 52"),
        (13.4, 0.0996, "13.40 ± 0.10"),  # rounding makes a digit more
        (123456.0, 321.0, "123456 ± 321"),
        (13.4, 1e-5, "13.4000 ± 1e-05"),  # the value has six digits, the error is finer
        (-0.0123, 0.031, "-0.012 ± 0.031"),
        (-0.001, 0.31, "0.00 ± 0.31"),
        (0.0, 0.0, "0 ± 0"),
        (1.0, 0.0, "1.00 ± 0"),
    ],
)
def test_a_value_has_the_decimals_of_its_error(mean: float, error: float, text: str) -> None:
    seeds = 0 if math.isnan(mean) else 1
    assert Scale().pooled(Pooled(mean, seeds, error=error)) == text
    scaled = Pooled(mean / 1000, seeds, error=error / 1000)
    assert Scale(-3).pooled(scaled) == text


def test_a_list_is_cut_where_it_is_long() -> None:
    assert listed(["a"]) == "a"
    assert listed(list("abcdef")) == "a, b, c, d, e and f"
    assert listed(list("abcdefgh")) == "a, b, c, d, e, f and 2 more"


def test_doctests() -> None:
    assert doctest.testmod(markdown).failed == 0


def test_equal_footnotes_share_a_number() -> None:
    notes = Footnotes()
    assert [notes.number(text) for text in ("a | b", "", "c", "a | b")] == [1, 0, 2, 1]
    assert notes.lines() == ["a | b", "c"]
    found = markdown.render(Table("", ["h"], [[Place("x", note=2)]], notes.lines()))
    assert found.splitlines()[2:] == [
        "| x<sup>2</sup> |",
        "",
        "<sup>1</sup> a \\| b  ",
        "<sup>2</sup> c",
    ]
    notes.number("long " * 100)
    assert len(notes.lines()[2]) < 330


@pytest.mark.parametrize(
    ("nfe", "text"), [(10.0, "10"), (1000, "1000"), (33.42, "33.4"), (1234.56, "1234.6")]
)
def test_calls_are_whole_or_a_mean(nfe: float, text: str) -> None:
    assert calls(nfe) == text


@pytest.mark.parametrize(
    ("value", "base", "text"),
    [
        *((64, 2, "32"), (7, 2, "3.5"), (2.1, 2, "1.05"), (1.98, 2, "0.99"), (9.96, 1, "10")),
        *((1, 0, "—"), (-1, 2, "—"), (math.nan, 2, "—"), (1, math.nan, "—")),
    ],
)
def test_a_ratio_has_two_digits_or_three_near_one(value: float, base: float, text: str) -> None:
    assert times(value, base) == text
