import doctest

import pytest

from bench import published
from bench.errors import ResultError


def test_doctests() -> None:
    assert doctest.testmod(published).failed == 0


def test_the_shipped_table_is_whole() -> None:
    rows = published.rows()
    assert len(rows) == 564
    assert all(float(row["fid"]) > 0 and row["paper"] for row in rows)
    assert {row["tier"] for row in rows} == {"primary", "secondary"}


def test_the_table_of_the_ddim_paper_is_in_it() -> None:
    """Table 1 of Song, Meng and Ermon 2021, CIFAR-10, as read in two independent copies."""
    paper = {
        "0": (13.36, 6.84, 4.67, 4.16, 4.04),
        "0.2": (14.04, 7.11, 4.77, 4.25, 4.09),
        "0.5": (16.66, 8.35, 5.25, 4.46, 4.29),
        "1": (41.07, 18.36, 8.01, 5.78, 4.73),
        "sigma-hat": (367.43, 133.37, 32.72, 9.99, 3.17),
    }
    for eta, values in paper.items():
        rows = published.find(
            ["Denoising Diffusion Implicit Models (Song, Meng, Ermon)", f"eta={eta}"]
        )
        found = {int(row["steps"]): float(row["fid"]) for row in rows if "Table 1" in str(row)}
        assert found == dict(zip((10, 20, 50, 100, 1000), values, strict=True)), eta


def test_filters_narrow_and_numbers_compare_as_numbers() -> None:
    ddim = published.find(["DDIM", "spacing=quadratic"])
    assert 0 < len(ddim) < len(published.find(["ddim"]))
    assert published.find(["eta=0"]) == published.find(["eta=0.00"])
    assert all(row["spacing"] == "" for row in published.find(["spacing="]))
    assert published.find(["no such word anywhere"]) == []


def test_a_column_that_is_not_there_is_named_with_the_nearest() -> None:
    with pytest.raises(ResultError) as caught:
        published.find(["etta=0"])
    assert str(caught.value).startswith(
        'The filter "etta=0": published values have no column "etta". Did you mean "eta"? There '
        "are: method, sampler_family, spacing, eta, "
    )
