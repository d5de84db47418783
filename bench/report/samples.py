"""samples.png: the same seeds through every sampler, side by side.

The images lie in `work/`, which is not in version control. So that a report can be built again
from a clone, the picture carries an identity in its metadata: a digest of the cells it shows and
of what they were computed with. Where the images are absent, a picture that matches the records
stays as it is; one that does not match is removed.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from bench import atomic
from bench.report import frame
from bench.report.content import Picture
from bench.report.frame import Setting, Study
from bench.report.ink import encode, style
from bench.report.names import EXACT, rivals
from bench.report.tables import EXACT_DRAWS

NAME = "samples.png"
ALT = "Samples of every configuration at equal seeds"
SHOWN = 8
"""Images in a row."""
ROWS = 24
"""Most rows; a picture with more is not looked at."""

_DPI = 100
_ZOOM = 2


@dataclass(frozen=True)
class _Row:
    """A configuration and its cells, one for each NFE that is shown (None: no such cell)."""

    label: str
    cells: tuple[str | None, ...]


@dataclass(frozen=True)
class _Sheet:
    """What the picture shall show, decided from the records alone."""

    rows: tuple[_Row, ...]
    budgets: tuple[int, ...]
    seed: int
    short: bool
    """Whether some cell ran fewer calls than the NFE that it stands under."""
    left_out: int

    def identity(self, study: Study) -> str:
        """A digest of the cells, their names and what determined their images."""
        keys = [key for row in self.rows for key in row.cells if key]
        made = {
            key: [
                study.records[key].provenance.get(part) for part in ("fingerprint", "model_digest")
            ]
            for key in keys
        }
        rows = [[row.label, row.cells] for row in self.rows]
        content = json.dumps([SHOWN, self.budgets, rows, made], sort_keys=True)
        return f"cells {hashlib.sha256(content.encode()).hexdigest()[:16]}"


def write(study: Study, folders: Sequence[Path], out: Path) -> Picture:
    """Draws samples.png, keeps the one that is there, or says why there is none."""
    path = out / NAME
    sheet = _sheet(study)
    if sheet is None:
        path.unlink(missing_ok=True)
        return Picture(None, "No samples: no cell is done yet.")
    wanted = [key for row in sheet.rows for key in row.cells if key]
    images = {key: found for key in wanted if (found := _first(folders, key)) is not None}
    identity = sheet.identity(study)
    if len(images) < len(set(wanted)):
        if _identity(path) == identity:
            return Picture(NAME, _caption(sheet), ALT)
        identity = "incomplete"
    if not images:
        path.unlink(missing_ok=True)
        return Picture(
            None,
            "No samples: they lie beside the results, in work/, on the machine that computed "
            "them. Build the report there to draw them.",
        )
    with style():
        atomic.write_bytes(path, encode(_figure(sheet, images), "png", identity, dpi=_DPI))
    return Picture(NAME, _caption(sheet), ALT)


def _sheet(study: Study) -> _Sheet | None:
    """The rows and NFEs to show, of the first setting with a finished cell and its first seed.

    The NFEs are the smallest and the largest at which half of the configurations have a cell.
    """
    setting = _first_done(study)
    if setting is None:
        return None
    cells = setting.cells[setting.cells["status"] == "done"]
    seed = int(cells["seed"].min())
    cells = cells[cells["seed"] == seed]
    exact = cells.loc[cells["sampler"] == EXACT, "key"]
    sampled = frame.serve_all(cells[rivals(cells)])
    coverage = sampled.groupby("budget")["rank"].nunique()
    usual = [int(budget) for budget in coverage.index[coverage >= coverage.max() / 2]]
    budgets = tuple(dict.fromkeys([usual[0], usual[-1]])) if usual else (0,)
    shown = sampled[sampled["budget"].isin(budgets)]
    rows = [_Row(EXACT_DRAWS, (key,) * len(budgets)) for key in exact.head(1)]
    for _, group in shown.groupby("rank"):
        rows.append(_Row(str(group["label"].iloc[0]), tuple(_at(group, n) for n in budgets)))
    short = bool((shown["nfe"] != shown["budget"]).any())
    return _Sheet(tuple(rows[:ROWS]), budgets, seed, short, max(len(rows) - ROWS, 0))


def _first_done(study: Study) -> Setting | None:
    for setting in study.settings:
        if (setting.cells["status"] == "done").any():
            return setting
    return None


def _at(group: pd.DataFrame, budget: int) -> str | None:
    keys = group.loc[group["budget"] == budget, "key"]
    return None if keys.empty else str(keys.iloc[-1])


def _first(folders: Sequence[Path], key: str) -> npt.NDArray[np.uint8] | None:
    """The images of a cell, from the first folder that has them."""
    return next((found for folder in folders if (found := _read(folder, key)) is not None), None)


def _read(folder: Path, key: str) -> npt.NDArray[np.uint8] | None:
    """The first images of a cell, (N, H, W, 3), or None where they are absent or unreadable."""
    try:
        images = np.load(folder / "work" / key / "samples.npy", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3):
        return None
    shown = images[:SHOWN].transpose(0, 2, 3, 1)
    return np.repeat(shown, 3, axis=3) if shown.shape[3] == 1 else shown


def _identity(path: Path) -> str | None:
    try:
        with Image.open(path) as image:
            found = image.info.get("Description")
    except OSError:
        return None
    return str(found)


def _caption(sheet: _Sheet) -> str:
    words = [
        f"Samples 0 to {SHOWN - 1} of seed {sheet.seed}. A column starts from the same noise in "
        "every row of a sampler.",
        *(["Some rows ran a little less than the NFE above, as the tables say."] * sheet.short),
        "Building this report where the samples are absent leaves the picture as it is.",
    ]
    if sheet.left_out:
        words.append(f"The first {ROWS} of {ROWS + sheet.left_out} rows.")
    return " ".join(words)


def _figure(sheet: _Sheet, images: dict[str, npt.NDArray[np.uint8]]) -> Figure:
    """One strip of images for each row and NFE, on whole pixels so that nothing is blurred."""
    size = max(image.shape[1] for image in images.values()) * _ZOOM
    strip, gap, between, top = SHOWN * (size + 2), 6, 28, 30
    left = 18 + round(7.0 * max(len(row.label[:40]) for row in sheet.rows))
    width = left + len(sheet.budgets) * (strip + between) - between + 8
    height = top + len(sheet.rows) * (size + gap) + 4
    figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI)
    FigureCanvasAgg(figure)
    for column, budget in enumerate(sheet.budgets):
        x = left + column * (strip + between)
        figure.text(x / width, 1 - 0.5 * top / height, _title(budget), va="center", size="medium")
        for index, row in enumerate(sheet.rows):
            y = height - top - index * (size + gap) - size
            if column == 0:
                figure.text(
                    (left - 8) / width, (y + size / 2) / height, row.label[:40],
                    ha="right", va="center", size="small",
                )  # fmt: skip
            axes = figure.add_axes((x / width, y / height, strip / width, size / height))
            axes.set_axis_off()
            found = images.get(row.cells[column] or "")
            if found is None:
                axes.text(0, 0.5, "no samples", va="center", size="small", color="#6b6b6b")
            else:
                axes.imshow(_strip(found, size), interpolation="nearest", aspect="auto")
    return figure


def _title(budget: int) -> str:
    return f"{budget} NFE" if budget else ""


def _strip(images: npt.NDArray[np.uint8], size: int) -> npt.NDArray[np.uint8]:
    """Images side by side, enlarged by whole numbers, two white pixels after each."""
    zoom = size // images.shape[1]
    strip = np.full((size, SHOWN * (size + 2), 3), 255, dtype=np.uint8)
    for index, image in enumerate(images):
        large = image.repeat(zoom, axis=0).repeat(zoom, axis=1)
        start = index * (size + 2)
        strip[: large.shape[0], start : start + large.shape[1]] = large
    return strip
