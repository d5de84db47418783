"""Where panels and names stand in a picture, in inches, without asking a renderer for sizes."""

from dataclasses import dataclass
from functools import cached_property

PANEL = 4.4, 3.5
"""Width and height of a panel in inches."""


@dataclass(frozen=True)
class Layout:
    """Places panels in inches: no automatic layout, which would ask the renderer for text sizes.

    Attributes:
        columns: Panels in a row.
        wide: Of each panel, whether it has a row of its own.
        label: Width of the names to the right of a panel.
        top: Height of the title above a panel.
    """

    columns: int
    wide: tuple[bool, ...]
    label: float
    top: float
    left: float = 0.85
    bottom: float = 0.65
    gap: float = 0.7

    @cached_property
    def cells(self) -> list[tuple[int, int]]:
        """Row and column of each panel, of a wide one that where it begins."""
        cells: list[tuple[int, int]] = []
        free = 0
        for wide in self.wide:
            if wide:
                free += -free % self.columns
            cells.append(divmod(free, self.columns))
            free += self.columns if wide else 1
        return cells

    @property
    def width(self) -> float:
        return self.left + self.columns * (PANEL[0] + self.label) + (self.columns - 1) * self.gap

    @property
    def height(self) -> float:
        rows = self.cells[-1][0] + 1
        return rows * (PANEL[1] + self.top) + self.bottom + (rows - 1) * 0.3

    def place(self, row: int, column: int, *, wide: bool) -> tuple[float, float, float, float]:
        """Left, bottom, width and height of a panel, as parts of the figure's."""
        pitch = PANEL[0] + self.label + self.gap
        width = PANEL[0] + (self.columns - 1) * pitch * wide
        top = row * (PANEL[1] + self.top + 0.3) + self.top
        x, y = self.left + column * pitch, self.height - top - PANEL[1]
        return x / self.width, y / self.height, width / self.width, PANEL[1] / self.height


def spread(heights: list[float], gap: float) -> list[float]:
    """Moves sorted heights apart to at least `gap`: upwards, and down again from the top edge."""
    placed = list(heights)
    for index in range(1, len(placed)):
        placed[index] = max(placed[index], placed[index - 1] + gap)
    ceiling = 1.0
    for index in reversed(range(len(placed))):
        placed[index] = min(placed[index], ceiling)
        ceiling = placed[index] - gap
    return placed
