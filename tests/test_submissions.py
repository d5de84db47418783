import time
from dataclasses import replace
from pathlib import Path

import pytest

from bench import submissions
from bench.errors import ResultError
from bench.submissions import Submission


def intended(*keys: list[str], snapshot: Path | None = None) -> Submission:
    return Submission.intended(
        "local", "tiny", keys, now=time.time(), code="c", commit=None, snapshot=snapshot
    )


def test_what_is_written_is_read(tmp_path: Path) -> None:
    made = intended(["a", "b"], ["c"], snapshot=tmp_path)
    assert not made.complete
    assert made.ours
    assert not replace(made, started=1).ours
    submissions.write(tmp_path, made)
    assert submissions.read_all(tmp_path) == [made]
    whole = made.with_job(0, "17", [Path("out"), Path("err")], 5).with_job(1, "18", [Path("out")])
    assert whole.complete
    submissions.write(tmp_path, whole)
    assert submissions.read_all(tmp_path) == [whole]
    submissions.withdraw(tmp_path, whole)
    assert submissions.read_all(tmp_path) == []


def test_they_are_read_in_the_order_in_which_they_were_made(tmp_path: Path) -> None:
    made = [intended(["a"]) for _ in range(5)]
    for one in reversed(made):
        submissions.write(tmp_path, one)
    assert submissions.read_all(tmp_path) == made


def test_the_last_submission_of_each_cell() -> None:
    first, second = intended(["a", "b"]), intended(["b"], ["c"])
    assert submissions.latest([first, second]) == {"a": first, "b": second, "c": second}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not valid JSON"),
        ('{"format": 2}', "has format 2; this version of bench reads format 1"),
        ('{"format": 1, "jobs": [{"id": "17"}]}', "is not a submission"),
        ('{"format": 1, "jobs": [], "colour": "red"}', "is not a submission"),
    ],
)
def test_file_that_is_no_submission(tmp_path: Path, text: str, message: str) -> None:
    folder = submissions.folder_of(tmp_path)
    folder.mkdir(parents=True)
    (folder / "1.json").write_text(text)
    with pytest.raises(ResultError, match=message):
        submissions.read_all(tmp_path)
