"""Presets: published settings by name, each with its citation.

`preset: NAME` in a grid row stands for plain keys, as though they were written after the row's own;
`bench check` shows them. Keys beside it take the place of the preset's: one of the same name, and
steps and nfe each other's. Another sampler (or spacing) than the preset's leaves out the preset's
parameters of its own. So this is DDIM's published setting at another eta and other budgets:

    - {preset: ddim-paper, eta: 0.5, nfe: [5, 10]}

A preset says nothing about the model: the citation names the network that it was published for.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches

from bench.errors import nearest
from bench.yaml_lines import Document, Yaml, show


@dataclass(frozen=True)
class Preset:
    """A published setting.

    Attributes:
        name: as written in sweeps.
        summary: what it is, in a line.
        paper: where it was published, and for which network.
        sampler: the key `sampler` and the sampler's parameters.
        spacing: the key `spacing` and the spacing's parameters.
        rest: final, and the published steps or nfe.
    """

    name: str
    summary: str
    paper: str
    sampler: Mapping[str, Yaml]
    spacing: Mapping[str, Yaml]
    rest: Mapping[str, Yaml]

    @property
    def keys(self) -> dict[str, Yaml]:
        """All its keys, as a row would write them."""
        return {**self.sampler, **self.spacing, **self.rest}

    def beside(self, given: Mapping[str, Yaml]) -> dict[str, Yaml]:
        """Its keys that stand beside the keys `given` of a row."""
        out = set(given)
        for part, head in ((self.sampler, "sampler"), (self.spacing, "spacing")):
            if given.get(head, part[head]) != part[head]:
                out |= set(part)
        if "steps" in given:
            out |= {"nfe", "unreachable"}
        if "nfe" in given:
            out.add("steps")
        return {key: value for key, value in self.keys.items() if key not in out}


@dataclass(frozen=True)
class Expansion:
    """What became of a row with a preset.

    Attributes:
        place: the row as messages name it, with its line: "line 8, grid[1]".
        preset: the preset of the row.
        row: the plain keys of the row.
        replaced: the keys of the preset that the row's own took the place of.
    """

    place: str
    preset: Preset
    row: Mapping[str, Yaml]
    replaced: Mapping[str, Yaml]


def expand(document: Document) -> list[Expansion]:
    """Put plain keys in place of the presets in the grid of a sweep file.

    A preset that cannot be used is a problem of the document, and stays in its row.
    """
    rows = document.data.get("grid")
    expansions = []
    for i, row in enumerate(rows if isinstance(rows, list) else []):
        if not isinstance(row, dict):
            continue  # a problem that is found elsewhere
        at, name = ("grid", i), row.get("preset")
        if "preset" not in row:
            if "sampler" not in row and (close := get_close_matches("preset", row, 1)):
                document.problem(
                    (*at, close[0]),
                    f'there is no key "{close[0]}" in {show(at)}. Did you mean "preset"?',
                )
            continue
        if not isinstance(name, str):
            advice = " Write a row for each." if isinstance(name, list) else ""
            document.unexpected((*at, "preset"), "the name of a preset", advice)
            continue
        if name not in PRESETS:
            document.problem(
                (*at, "preset"),
                f'there is no preset "{name}".{nearest(name, PRESETS)} "bench list presets" '
                f"shows all {len(PRESETS)}.",
            )
            continue
        preset = PRESETS[name]
        taken = preset.beside(row)
        for key, value in taken.items():
            document.insert((*at, key), value, (*at, "preset"), f'of preset "{name}"')
        del row["preset"]
        replaced = {key: value for key, value in preset.keys.items() if key not in taken}
        place = f"line {document.lines[*at, 'preset']}, {show(at)}"
        plain = {key: row[key] for key in [*preset.keys, *row] if key in row}  # in its order
        expansions.append(Expansion(place, preset, plain, replaced))
    return expansions


_HO = "Ho, Jain and Abbeel 2020, arXiv:2006.11239"
_EDM = "Karras et al. 2022, arXiv:2206.00364"

_ALL = (
    Preset(
        "ddim-paper",
        "DDIM, eta 0, on the quadratic sub-sequence; at S = 1000 its table takes spacing: all.",
        "Song, Meng and Ermon 2021, arXiv:2010.02502, table 1, appendix D.2; network of Ho et al.",
        {"sampler": "ddim", "eta": 0},
        {"spacing": "quadratic"},
        {"final": "zero", "steps": [10, 20, 50, 100]},
    ),
    Preset(
        "ddpm-small",
        "Ancestral sampling over all indices with the posterior's variance and x0 clipped.",
        f"{_HO}, section 3.2 (sigma_t^2 = beta-tilde) and the authors' code",
        {"sampler": "ddpm", "variance": "small", "clip": True},
        {"spacing": "all"},
        {"final": "zero"},
    ),
    Preset(
        "ddpm-large",
        "Ancestral sampling over all indices with variance beta and x0 clipped: FID 3.17.",
        f"{_HO}, table 1 (L_simple) and the authors' CIFAR-10 code (fixedlarge)",
        {"sampler": "ddpm", "variance": "large", "clip": True},
        {"spacing": "all"},
        {"final": "zero"},
    ),
    Preset(
        "edm-paper",
        "Deterministic Heun on EDM's grid, 18 steps, 35 calls.",
        f"{_EDM}, algorithm 1 and table 2; EDM networks, schedule edm",
        {"sampler": "heun"},
        {"spacing": "edm"},
        {"final": "zero", "steps": 18},
    ),
)

PRESETS = {preset.name: preset for preset in _ALL}
