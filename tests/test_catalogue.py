"""The facts that are listed and shown, held against what they are read from."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import pytest
from annotated_types import Ge, Le
from torch import Tensor

from bench import catalogue, models
from bench.diffusion.schedule import SCHEDULES
from bench.diffusion.spacing import SPACINGS
from bench.errors import ModelError, SweepError
from bench.models import function
from bench.presets import PRESETS
from bench.samplers import REGISTRY
from bench.samplers.registry import sampler

PAGE = Path(__file__).parents[1] / "docs/samplers.md"


@pytest.fixture
def wavering() -> Iterator[None]:
    """A sampler whose facts depend on its parameters, for one test."""

    @sampler(
        "wavering",
        family="test",
        paper="Nobody 1999, arXiv:9901.00001, eq. 1 | 2",
        order=lambda params: params["order"],  # type: ignore[arg-type, return-value]
        formula_order=4,
        stochastic=lambda params: params["churn"] != 0,
        calls=lambda steps, ends_at_zero, params: (
            steps + 9 if params["start"] == "slow" else 3 * steps - 2 * ends_at_zero
        ),
        min_steps=lambda params: 4 if params["start"] == "slow" else 1,
    )
    def wavering(
        denoise: object,
        x: Tensor,
        grid: object,
        noise: object,
        *,
        order: Annotated[int, Ge(1), Le(3)] = 2,
        start: Literal["slow", "quick"],
        churn: Annotated[float, Ge(0)] = 0.0,
    ) -> Tensor:
        """Wavers.

        A paragraph on how.
        """
        return x

    yield
    del REGISTRY["wavering"]


@pytest.mark.usefixtures("wavering")
def test_a_fact_is_told_at_the_defaults_and_where_one_parameter_changes_it() -> None:
    found = catalogue.find("samplers", "wavering")
    assert found["order"] == {"default": 2, "otherwise": {"order: 1": 1, "order: 3": 3}}
    assert found["formula-order"] == {"default": 4, "otherwise": {}}
    assert found["stochastic"] == {"default": False, "otherwise": {"churn: 1": True}}
    assert found["nfe"] == {
        "default": "n + 9",
        "otherwise": {"start: quick": "3n - 2 to zero, 3n to sigma-min"},
    }
    assert found["min-steps"] == {"default": 4, "otherwise": {"start: quick": 1}}
    assert found["parameters"] == [
        {"name": "order", "expected": "a whole number at least 1 and at most 3", "default": 2},
        {"name": "start", "expected": '"slow" or "quick"'},
        {"name": "churn", "expected": "a number at least 0", "default": 0.0},
    ]
    assert found["details"] == "A paragraph on how."


def test_what_is_on_file_for_a_certificate_and_where_the_order_is_lower() -> None:
    found = catalogue.find("samplers", "ipndm")
    assert re.fullmatch(
        r"\d+ golden values; ipndm = ab order=4; examined by \"bench certify ipndm\"",
        found["certificate"],
    )
    assert (found["order"]["default"], found["rough-order"]["default"]) == (2, 1)
    assert "rough-order" not in catalogue.find("samplers", "heun")


@pytest.mark.usefixtures("wavering")
def test_the_facts_of_one_name_as_text() -> None:
    assert (
        catalogue.page(catalogue.find("samplers", "wavering"))
        == """\
wavering: Wavers.

  family          test
  paper           Nobody 1999, arXiv:9901.00001, eq. 1 | 2
  order           2; 1 with order: 1; 3 with order: 3
  formula order   4
  stochastic      no; yes with churn: 1
  NFE of n steps  n + 9; 3n - 2 to zero, 3n to sigma-min with start: quick
  fewest steps    4; 1 with start: quick
  certificate     examined by "bench certify wavering"

Parameters:
  order: a whole number at least 1 and at most 3 (default 2)
  start: "slow" or "quick"
  churn: a number at least 0 (default 0)

A paragraph on how."""
    )


@pytest.mark.parametrize("kind", models.KINDS)
def test_the_keys_of_a_kind_of_model_are_those_that_it_takes(kind: str) -> None:
    with pytest.raises(ModelError) as caught:
        models.describe({"kind": kind, "no such key": 1})
    shown = catalogue.find("models", kind)
    names = [parameter["name"] for parameter in shown["parameters"]]
    assert str(caught.value).endswith(f" Known are: {', '.join(['kind', *names])}.")
    assert list(shown["keys"]) == [key for key in ["kind", *names] if key in shown["keys"]]
    assert shown["keys"]["kind"] == kind
    assert f"  {names[-1]}: " in catalogue.page(shown)


def test_the_page_of_models_has_every_kind_and_key() -> None:
    text = (PAGE.parent / "models.md").read_text()
    first, *sections = re.split(r"^## (?=[a-z])", text, flags=re.MULTILINE)
    for kind, section in zip(models.KINDS, sections, strict=True):
        assert section.startswith(f"{kind}\n")
        assert f"| `{kind}` | " in first
        rows = re.findall(r"^\| `([a-z-]+)` \| (.*) \|$", section.split("\n\n")[1], re.MULTILINE)
        assert dict(rows) == models.KEYS[kind]
    targets = re.findall(r"^\| `(\w+)` \|", sections[-1].split("| target |")[1], re.MULTILINE)
    assert tuple(targets) == function.TARGETS


@pytest.mark.usefixtures("wavering")
def test_a_row_of_the_page() -> None:
    [row] = [line for line in catalogue.markdown().splitlines() if "wavering" in line]
    assert row == (
        "| wavering | test | Wavers. | 2; 1 with order: 1; 3 with order: 3 | 4 | "
        "no; yes with churn: 1 | n + 9; 3n - 2 to zero, 3n to sigma-min with start: quick | "
        "4; 1 with start: quick |  | order: a whole number at least 1 and at most 3 (default 2)<br>"
        'start: "slow" or "quick"<br>churn: a number at least 0 (default 0) | Nobody 1999, '
        "[arXiv:9901.00001](https://arxiv.org/abs/9901.00001), eq. 1 \\| 2 |"
    )


@pytest.mark.parametrize(
    ("counts", "fewest", "words"),
    [
        (list(range(1, 33)), 1, "n"),
        ([2 * n for n in range(1, 33)], 1, "2n"),
        ([2 * n - 1 for n in range(1, 33)], 1, "2n - 1"),
        ([n + 9 for n in range(4, 36)], 4, "n + 9"),
        ([4 * n for n in (1, 2, 3)] + [n + 9 for n in range(4, 33)], 1, "n + 9 from n = 3 on"),
        ([n + n // 3 for n in range(1, 33)], 1, "1, 2, 4, 5, 6, 8, ... for n = 1, 2, ..."),
    ],
)
def test_a_formula_is_the_line_on_which_the_counts_lie(
    counts: list[int], fewest: int, words: str
) -> None:
    assert catalogue._formula(counts, fewest) == words


LINE = r"(?:(\d*)n)?(?: ?([+-]) ?(\d+))?"


@pytest.mark.parametrize("name", [name for name in REGISTRY if REGISTRY[name].calls])
def test_every_formula_gives_the_declared_nfe(name: str) -> None:
    chosen = REGISTRY[name]
    required = {n: p.examples[0] for n, p in chosen.params.items() if p.required}
    params = chosen.complete(required)
    words = catalogue.nfe_formula(chosen, params)
    to_zero, _, to_sigma_min = words.replace(" to zero", "").partition(", ")
    both = {"zero": to_zero, "sigma-min": to_sigma_min.removesuffix(" to sigma-min") or to_zero}
    for final, formula in both.items():
        matched = re.fullmatch(LINE, formula)
        assert matched, formula
        slope, sign, offset = matched.groups()
        for n in range(chosen.min_steps(params), 40):
            line = int(slope or 1) * n + int(f"{sign or '+'}{offset or 0}")
            assert chosen.nfe(n, final, params) == line  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("samplers", REGISTRY),
        ("spacings", SPACINGS),
        ("schedules", SCHEDULES),
        ("presets", PRESETS),
    ],
)
def test_everything_is_listed(kind: str, names: dict[str, object]) -> None:
    head, rows = catalogue.table(kind)
    assert {row[0] for row in rows} == set(names)
    assert {len(row) for row in rows} == {len(head)}
    assert {each["name"] for each in json.loads(json.dumps(catalogue.facts(kind)))} == set(names)


@pytest.mark.parametrize("kind", catalogue.KINDS)
def test_everything_can_be_shown(kind: str) -> None:
    for each in catalogue.facts(kind):
        text = catalogue.page(catalogue.find(kind, each["name"]))
        assert text.startswith(f"{each['name']}: {each['summary']}")
        assert "None" not in text
        assert "{'" not in text


def test_a_sampler_from_outside_can_be_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = catalogue.find("samplers", "ddim")
    name = "bench.samplers.implicit:ddim"
    certificate = f'examined by "bench certify {name}"'
    found = catalogue.find("samplers", name)
    assert found == {**ours, "name": name, "certificate": certificate}
    (tmp_path / "a_sampler.py").write_text(
        "def still(denoise, x, grid, noise, *, by: float):\n    '''Stands.'''\n    return x\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert (
        catalogue.page(catalogue.find("samplers", "a_sampler:still"))
        == """\
a_sampler:still: Stands.

  family          from outside
  order           none
  formula order   none
  stochastic      yes
  NFE of n steps  counted
  fewest steps    1
  certificate     examined by "bench certify a_sampler:still"

Parameters:
  by: a number"""
    )


def test_an_unknown_name() -> None:
    with pytest.raises(SweepError) as caught:
        catalogue.find("spacings", "trailling")
    assert str(caught.value) == (
        'There is no spacing "trailling". Did you mean "trailing"? "bench list spacings" shows '
        f"all {len(SPACINGS)}."
    )


def test_the_page_of_all_samplers_is_not_stale() -> None:
    assert PAGE.read_text() == catalogue.markdown(), (
        "write it again: bench list samplers --markdown > docs/samplers.md"
    )
