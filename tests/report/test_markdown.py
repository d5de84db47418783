import math

import pytest

from bench.report.frame import Pooled
from bench.report.markdown import Footnotes, Scale, calls, digits, escape, table, times


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
    ("mean", "sd", "text"),
    [(4.17, math.nan, "4.17"), (4.17, 0.052, "4.17 ± 0.05"), (13.4, 0.004, "13.4 ± 0.004"),
     (math.nan, math.nan, "—")],
)  # fmt: skip
def test_a_spread_has_the_digits_of_its_mean(mean: float, sd: float, text: str) -> None:
    seeds = 0 if math.isnan(mean) else 3
    assert Scale().pooled(Pooled(mean, sd, seeds, "")) == text


def test_equal_footnotes_share_a_number() -> None:
    notes = Footnotes()
    marks = [notes.mark(text) for text in ("a | b", "", "c", "a | b")]
    assert marks == ["<sup>1</sup>", "", "<sup>2</sup>", "<sup>1</sup>"]
    assert notes.lines() == ["<sup>1</sup> a \\| b  ", "<sup>2</sup> c  "]
    notes.mark("long " * 100)
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
