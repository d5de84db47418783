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
_SDE = "Song et al. 2021, arXiv:2011.13456, table 1 (VP, P1000)"
_EDM = "Karras et al. 2022, arXiv:2206.00364"
_TOOLBOX = "Zhou et al. 2024, arXiv:2312.00094, CIFAR-10 table of the authors' diff-sampler"

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
        "sde-paper-ancestral",
        "Ancestral sampling over all indices with variance beta, without a clip.",
        f"{_SDE}; DDPM network",
        {"sampler": "ddpm", "variance": "large", "clip": False},
        {"spacing": "all"},
        {"final": "zero"},
    ),
    Preset(
        "sde-paper-reverse-diffusion",
        "The reverse SDE discretised as the forward one, over all indices.",
        f"{_SDE}; DDPM network",
        {"sampler": "reverse-diffusion"},
        {"spacing": "all"},
        {"final": "zero"},
    ),
    Preset(
        "sde-paper-pc",
        "Reverse diffusion with one Langevin step of snr 0.01 at each index.",
        "Song et al. 2021, arXiv:2011.13456, tables 1 and 5 (VP, PC1000); DDPM network",
        {"sampler": "pc", "predictor": "reverse-diffusion", "corrector-steps": 1, "snr": 0.01},
        {"spacing": "all"},
        {"final": "zero"},
    ),
    Preset(
        "edm-paper",
        "Deterministic Heun on EDM's grid: 18 steps, 35 calls.",
        f"{_EDM}, algorithm 1 and table 2; EDM networks",
        {"sampler": "edm", "s-churn": 0},
        {"spacing": "edm"},
        {"final": "zero", "steps": 18},
    ),
    Preset(
        "edm-paper-churn-vp",
        "EDM's stochastic sampler with its churn for the VP network, at 35 to 1023 calls.",
        f"{_EDM}, algorithm 2 and table 5; calls of Xu et al. 2023, arXiv:2306.14878, table 2; VP "
        "network of Song et al.",
        {"sampler": "edm", "s-churn": 30, "s-min": 0.01, "s-max": 1, "s-noise": 1.007},
        {"spacing": "edm"},
        {"final": "zero", "steps": [18, 32, 64, 128, 256, 512]},
    ),
    Preset(
        "edm-paper-churn-ve",
        "EDM's stochastic sampler with its churn for the VE network, at the calls of that for VP.",
        f"{_EDM}, algorithm 2 and table 5; VE network of Song et al.",
        {"sampler": "edm", "s-churn": 80, "s-min": 0.05, "s-max": 1, "s-noise": 1.007},
        {"spacing": "edm"},
        {"final": "zero", "steps": [18, 32, 64, 128, 256, 512]},
    ),
    Preset(
        "restart-paper",
        "Restart, 2 repeats from 0.06 to 0.3, on 18 steps: 43 calls (5, 10, 20: its next rows).",
        "Xu et al. 2023, arXiv:2306.14878, table 3; VP network of Song et al.",
        {"sampler": "restart", "points": 3, "repeats": 2, "s-min": 0.06, "s-max": 0.3},
        {"spacing": "edm"},
        {"final": "zero", "steps": 18},
    ),
    Preset(
        "dpm-solver-paper",
        "DPM-Solver-fast on an even log-SNR, to the network's least noise.",
        "Lu et al. 2022, arXiv:2206.00927, section 5.1 and appendix D.3; deep VP network of Song "
        "et al.",
        {"sampler": "dpm-solver", "order": ["fast-0", "fast-1", "fast-2"]},
        {"spacing": "logsnr"},
        {"final": "sigma-min", "nfe": [10, 12, 15, 20], "unreachable": "skip"},
    ),
    Preset(
        "dpm-solver-pp-paper",
        "DPM-Solver++ 3M on an even log-SNR, its last steps always of lower order.",
        "Zheng et al. 2023, arXiv:2310.13268, table 1 and the authors' code; EDM network",
        {
            "sampler": "dpm-solver++",
            "order": 3,
            "method": "multistep",
            "lower-order-final": "always",
        },
        {"spacing": "logsnr"},
        {"final": "sigma-min", "nfe": [5, 6, 8, 10, 12, 15, 20, 25]},
    ),
    Preset(
        "deis-paper",
        "DEIS tAB3 on its quadratic grid, to the network's least noise.",
        "Zhang and Chen 2022, arXiv:2204.13902, tables of CIFAR-10 (tAB3, kappa 2); deep VP "
        "network of Song et al.",
        {"sampler": "deis", "method": "tab", "order": 3},
        {"spacing": "time-power", "power": 2},
        {"final": "sigma-min", "nfe": [5, 10, 15, 20, 50]},
    ),
    Preset(
        "unipc-paper",
        "UniPC-3 with bh1 on an even log-SNR, its last steps of lower order.",
        "Zhao et al. 2023, arXiv:2302.04867, section 4 and the authors' CIFAR-10 script; deep VP "
        "network of Song et al.",
        {
            "sampler": "unipc",
            "order": 3,
            "variant": "bh1",
            "corrector": True,
            "lower-order-final": "always",
        },
        {"spacing": "logsnr"},
        {"final": "sigma-min", "nfe": [5, 6, 8, 10]},
    ),
    Preset(
        "pndm-paper",
        "F-PNDM on the even sub-sequence: n steps make n + 9 calls.",
        "Liu et al. 2022, arXiv:2202.09778, table 1 (linear); network of Ho et al.",
        {"sampler": "pndm"},
        {"spacing": "uniform"},
        {"final": "zero", "steps": [10, 20, 50, 100, 250]},
    ),
    Preset(
        "diff-sampler-euler",
        "Euler on EDM's grid, to the network's least noise.",
        f"{_TOOLBOX}; EDM network",
        {"sampler": "euler"},
        {"spacing": "edm"},
        {"final": "sigma-min", "nfe": [3, 4, 5, 6, 7, 8, 9, 10]},
    ),
    Preset(
        "diff-sampler-heun",
        "Heun on EDM's grid, to the network's least noise.",
        f"{_TOOLBOX}; EDM network",
        {"sampler": "heun"},
        {"spacing": "edm"},
        {"final": "sigma-min", "nfe": [4, 6, 8, 10]},
    ),
    Preset(
        "diff-sampler-dpm-solver-2",
        "DPM-Solver-2 on EDM's grid, to the network's least noise.",
        f"{_TOOLBOX}; EDM network",
        {"sampler": "dpm-solver", "order": 2},
        {"spacing": "edm"},
        {"final": "sigma-min", "nfe": [4, 6, 8, 10]},
    ),
    Preset(
        "diff-sampler-dpm-solver-pp",
        "DPM-Solver++ 3M on an even log-SNR, its last steps always of lower order.",
        f"{_TOOLBOX}; EDM network",
        {
            "sampler": "dpm-solver++",
            "order": 3,
            "method": "multistep",
            "lower-order-final": "always",
        },
        {"spacing": "logsnr"},
        {"final": "sigma-min", "nfe": [3, 4, 5, 6, 7, 8, 9, 10]},
    ),
    Preset(
        "diff-sampler-unipc",
        "UniPC-3 with bh2 on an even log-SNR, its last steps of lower order.",
        f"{_TOOLBOX}; EDM network",
        {
            "sampler": "unipc",
            "order": 3,
            "variant": "bh2",
            "corrector": True,
            "lower-order-final": "always",
        },
        {"spacing": "logsnr"},
        {"final": "sigma-min", "nfe": [3, 4, 5, 6, 7, 8, 9, 10]},
    ),
    Preset(
        "diff-sampler-ipndm",
        "iPNDM of up to four steps on EDM's grid, to the network's least noise.",
        f"{_TOOLBOX}; EDM network",
        {"sampler": "ipndm"},
        {"spacing": "edm"},
        {"final": "sigma-min", "nfe": [3, 4, 5, 6, 7, 8, 9, 10]},
    ),
    Preset(
        "consistency-paper",
        "Two calls, at noise 80 and 0.585.",
        "Song et al. 2023, arXiv:2303.01469, table 1; consistency model on EDM's time",
        {"sampler": "consistency"},
        {"spacing": "explicit", "times": [80, 0.585]},
        {"final": "zero"},
    ),
)

PRESETS = {preset.name: preset for preset in _ALL}
