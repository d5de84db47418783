"""Names of configurations, as short as tells them apart.

A configuration has two names: `line` (sampler and parameters) and `grid` (spacing), each with only
what varies in the sweep; `label` is both. Where there are many configurations, names also leave
out what most of them share: a sweep that puts every sampler on one grid need not repeat that grid.
"""

from typing import Any

import pandas as pd

EXACT = "exact"
FLOW = "exact-flow"
REFERENCES = (EXACT, FLOW)
"""Not samplers to be compared but what they are compared with."""

MANY = 8
"""More configurations than these are too many for one panel, one table or full names."""

_TOLERANCES = ("param.rtol", "param.atol", "param.tolerance")
_CONFIGURATION = ("sampler", "spacing", "final")


def named(cells: pd.DataFrame) -> pd.DataFrame:
    """What `results.load` gives, with the columns tolerance, rank, line, grid and label.

    `tolerance`, in words, is None but for samplers that choose their own steps: their cells are one
    configuration, and differ in their tolerances as those of others do in their steps. `rank`
    numbers the configurations in the order of the sweep.
    """
    cells = cells.rename(columns={"label": "cell"})  # `label` is the name of a configuration here
    tolerance = _tolerances(cells)
    free = tolerance.notna()
    told = cells.assign(**{name: cells[name].mask(free) for name in _TOLERANCES if name in cells})
    ranks = _ranks(told)
    short = ranks[rivals(cells)].nunique() > MANY
    cells = cells.assign(
        tolerance=tolerance, rank=ranks, line=_lines(told, ranks, short), grid=_grids(cells)
    )
    return cells.assign(label=_labels(cells))


def rivals(cells: pd.DataFrame) -> "pd.Series[bool]":
    """Which cells are of samplers that are to be compared."""
    return ~cells["sampler"].isin(REFERENCES)


def usual_grid(cells: pd.DataFrame) -> str | None:
    """The spacing that labels leave out: that of most configurations, where there are many."""
    shown = cells[rivals(cells)].drop_duplicates("rank")
    return _usual(shown["grid"]) if len(shown) > MANY else None


def plain(value: Any) -> str:
    """A parameter's value in the shortest usual form: 0.0 as "0", True as "true", none as ""."""
    if pd.api.types.is_bool(value):
        return str(value).lower()
    if not isinstance(value, str) and pd.isna(value):
        return ""
    try:
        return f"{float(value):g}"  # also the text "0.0", which a mixed column makes of the number
    except ValueError:
        return str(value)


def _tolerances(cells: pd.DataFrame) -> "pd.Series[Any]":
    """Of samplers whose calls are only counted and that have a tolerance."""
    counted = rivals(cells) & (cells["nfe"].isna() | cells["nfe_mean"].notna())
    columns = [name for name in _TOLERANCES if name in cells]
    words = [
        ", ".join(
            f"{str(name).removeprefix('param.')} {plain(value)}"
            for name, value in row.items()
            if pd.notna(value)
        )
        for row in cells[columns].to_dict("records")
    ]
    return pd.Series([word or None for word in words], cells.index, dtype=object).where(counted)


def _ranks(cells: pd.DataFrame) -> "pd.Series[int]":
    identity = [
        *_CONFIGURATION,
        *(name for name in cells.columns if name.startswith(("param.", "spacing."))),
    ]
    keys = [tuple(map(plain, row)) for row in cells[identity].itertuples(index=False)]
    ranks = {key: rank for rank, key in enumerate(dict.fromkeys(keys))}
    return pd.Series([ranks[key] for key in keys], cells.index, dtype=int)


def _lines(cells: pd.DataFrame, ranks: "pd.Series[int]", short: bool) -> "pd.Series[str]":
    """Sampler and those of its parameters that vary; an order is part of a solver's name."""
    sampled = cells[cells["sampler"] != EXACT]
    several_ends = sampled["final"].nunique() > 1
    names = {}
    for sampler, group in sampled.groupby("sampler"):
        once = group[~ranks[group.index].duplicated()]
        varying = [name for name in _varying(group, "param.") if name != "param.order"]
        left_out = {name: _usual(once[name].map(plain)) for name in varying if short}
        for index, row in group.iterrows():
            words = [str(sampler)]
            if "param.order" in row and pd.notna(row["param.order"]):
                words.append(plain(row["param.order"]))
            words += [
                _setting(row, name) for name in varying if plain(row[name]) != left_out.get(name)
            ]
            words += [f"final={row['final']}"] if several_ends else []
            names[index] = " ".join(word for word in words if word)
    return pd.Series([names.get(index, EXACT) for index in cells.index], cells.index, dtype=object)


def _grids(cells: pd.DataFrame) -> "pd.Series[str]":
    """Spacing and those of its parameters that vary."""
    names = {}
    for spacing, group in cells[cells["spacing"].notna()].groupby("spacing"):
        varying = _varying(group, "spacing.")
        for index, row in group.iterrows():
            words = [str(spacing), *(_setting(row, name) for name in varying)]
            names[index] = " ".join(word for word in words if word)
    return pd.Series([names.get(index, "") for index in cells.index], cells.index, dtype=object)


def _labels(cells: pd.DataFrame) -> "pd.Series[str]":
    """The line, with the grid where there are several and it is not the usual one."""
    several = cells.loc[rivals(cells), "grid"].nunique() > 1
    usual = usual_grid(cells)
    labels = [
        f"{line} ({grid})" if several and grid and grid != usual else line
        for line, grid in zip(cells["line"], cells["grid"], strict=True)
    ]
    return pd.Series(labels, cells.index, dtype=object)


def _varying(group: pd.DataFrame, prefix: str) -> list[str]:
    """The columns with this prefix in which cells of one sampler or spacing differ."""
    return [
        name
        for name in group.columns
        if name.startswith(prefix) and group[name].nunique(dropna=False) > 1
    ]


def _usual(values: "pd.Series[str]") -> str | None:
    """The text that more than half of the values have; None without one, or with an empty one.

    An empty text is named by nothing, so leaving out another would confuse the two.
    """
    count = values.value_counts()
    if "" in count or len(count) < 2 or 2 * count.iloc[0] <= len(values):
        return None
    return str(count.index[0])


def _setting(row: "pd.Series[Any]", column: str) -> str:
    value = plain(row[column])
    return f"{column.split('.', 1)[1]}={value}" if value else ""
