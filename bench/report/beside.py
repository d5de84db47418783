"""Published values beside measured ones, with a verdict.

Only rows of the same network are shown. A row is held against the measured point of the same
sampler at the same steps that it has most in common with; what they do not have in common makes
them not comparable, and is said.

A paper gives no error. Its value is taken to have that of ours, scaled to its number of images, and
half a unit of its last digit; together with ours that is the combined uncertainty, at 95 %.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd

from bench import published
from bench.published import Row
from bench.report import frame
from bench.report.content import Place, Table
from bench.report.frame import Setting
from bench.report.markdown import Scale, calls, digits
from bench.report.names import plain
from bench.report.pooled import Pooled

METRIC, REFERENCE, USUAL = "fid", "cifar10-train", 50_000
"""What a value in the table of published ones is: FID to the training images, of 50,000 images
where a paper does not say of how many."""
QUANTILE = 1.96

_FAMILIES = {
    "ddim": ("ddim", "ddpm-ancestral"),  # eta = 1 and sigma-hat are rows of ancestral sampling
    "ddpm": ("ddpm-ancestral",),
    "dpm-solver": ("dpm-solver",),
    "dpm-solver++": ("dpm-solver++",),
    "unipc": ("unipc",),
    "deis": ("deis",),
    "ipndm": ("ipndm",),
    "pndm": ("pndm",),
    "heun": ("edm-heun",),
    "edm": ("edm-heun", "edm-stochastic"),
    "consistency": ("consistency",),
}
_SPACINGS = {
    "uniform": "uniform",
    "quadratic": "quadratic",
    "all": "all-timesteps",
    "logsnr": "logSNR",
    "edm": "edm rho=7",
    "karras": "edm rho=7",
}
_ETAS = {"small": "1", "large": "sigma-hat"}
"""Of ancestral sampling, by its variance."""


@dataclass(frozen=True)
class Pair:
    """A published row and the measured point that it is held against.

    Attributes:
        row: As published.
        point: As `frame.points` gives it.
        against: Why the two are not comparable; empty if they are.
    """

    row: Row
    point: "pd.Series[Any]"
    against: tuple[str, ...]

    @property
    def value(self) -> float:
        """The published one."""
        return float(self.row["fid"])

    @property
    def verdict(self) -> str:
        """agrees, differs by so much, or not comparable because."""
        if self.against:
            return f"not comparable: {'; '.join(self.against)}"
        measured: Pooled = self.point["value"]
        difference = measured.mean - self.value
        told = f"{difference:+.3g} ({100 * difference / self.value:+.1f} %)"
        if not measured.sure:
            return f"differs by {told}; without an error bar it is open whether that is noise"
        within = self.uncertainty(measured.error)
        if abs(difference) <= within:
            return f"agrees: {told}, within ± {digits(within)}"
        return f"differs by {told}, outside the combined uncertainty ± {digits(within)}"

    def uncertainty(self, error: float) -> float:
        """Of the difference, at 95 %, from the standard error of the measured value."""
        images = float(self.row["n_samples"] or USUAL)
        theirs = error * math.sqrt(float(self.point["samples"]) / images)
        decimals = len(self.row["fid"].partition(".")[2])
        return QUANTILE * math.hypot(error, theirs) + 0.5 * 10.0**-decimals


def model_id(setting: Setting) -> str:
    """The id of the setting's network among published rows, or "" if there is none."""
    name = setting.model.partition(" (")[0].rstrip("/").rpartition("/")[2]
    ids = {row["model"] for row in published.rows()} - {""}
    return name if name in ids else ""


def pairs(setting: Setting, metric: str) -> list[Pair]:
    """The published rows of the setting's network with a measured point at the same steps."""
    network = model_id(setting)
    if not network or metric != METRIC:
        return []
    points = frame.points(frame.serve_all(setting.cells), metric)
    points = points[points["mean"].notna()].assign(samples=setting.samples)
    found = []
    for row in published.find([f"model={network}"]):
        same = points[[_same_sampler(row, point) for _, point in points.iterrows()]]
        if same.empty:
            continue
        held = [Pair(row, point, _against(row, point, setting)) for _, point in same.iterrows()]
        found.append(min(held, key=lambda pair: len(pair.against)))
    return found


def beside(setting: Setting, metric: str, scale: Scale) -> Iterator[Table]:
    """The table of published values, where there are any of the setting's network."""
    found = pairs(setting, metric)
    if not found:
        return
    rows = []
    for pair in sorted(found, key=lambda pair: len(pair.against) > 0):
        row, point = pair.row, pair.point
        source = ", ".join(word for word in (row["paper"], row["table_or_figure"]) if word)
        rows.append(
            [
                Place(row["method"]),
                Place(source + (" (quoted there)" if row["tier"] == "secondary" else "")),
                Place(str(point["label"])),
                Place(pair.verdict),
                Place(row["steps"] or row["nfe"]),
                Place(f"{pair.value / 10**scale.exponent:g}"),
                Place(scale.pooled(point["value"]), value=point["value"]),
            ]
        )
    header = ["Published", "Where", "Measured here", "Verdict", "Steps", "Their value", "Ours"]
    legend = (
        "Combined uncertainty: 95 % of the difference, where the published value is given the "
        "standard error of ours for its number of images (50,000 where it says nothing), and half "
        "a unit of its last digit. Careful re-implementations differ by 1 to 4 %. All rows of this "
        f"network: bench published model={model_id(setting)}"
    )
    yield Table("Published beside measured", header, rows, legend=legend, left=4, name="published")


def _same_sampler(row: Row, point: "pd.Series[Any]") -> bool:
    if row["sampler_family"] not in _FAMILIES.get(point["sampler"], ()):
        return False
    if row["steps"] and pd.notna(point["steps"]) and not point["served"]:
        return published.same(row["steps"], str(point["steps"]))
    return published.same(row["nfe"], calls(point["nfe"]))


def _against(row: Row, point: "pd.Series[Any]", setting: Setting) -> tuple[str, ...]:
    """What keeps a row and a point from being compared."""
    reasons = []
    grid = "all" if point["served"] else str(point["grid"])
    if not row["spacing"]:
        reasons.append("its spacing is not stated")
    elif not published.same(row["spacing"], _SPACINGS.get(grid, grid)):
        reasons.append(f"spacing {row['spacing']}, here {grid}")
    ours = _eta(point)
    if not row["eta"]:
        reasons.append("its eta is not stated")
    elif not published.same(row["eta"], ours):
        reasons.append(f"eta {row['eta']}, here {ours}")
    order = plain(point.get("param.order"))
    if order and not published.same(row["order"], order):
        reasons.append(f"order {row['order'] or 'not stated'}, here {order}")
    if row["conditional"] != "unconditional":
        reasons.append(f"{row['conditional']} samples")
    if setting.samples != float(row["n_samples"] or USUAL):
        reasons.append(f"{setting.samples:,} images here, not {int(row['n_samples'] or USUAL):,}")
    if setting.reference != REFERENCE:
        reasons.append(f"reference {setting.reference} here, not {REFERENCE}")
    return tuple(reasons)


def _eta(point: "pd.Series[Any]") -> str:
    variance = plain(point.get("param.variance"))
    return _ETAS.get(variance) or plain(point.get("param.eta")) or "0"
