from pathlib import Path

import pytest

from bench.errors import SweepError
from bench.yaml_lines import one_line, parse, read, show

TEXT = """\
# How many lines?
name: a
list:
  - {x: 1e-3, y: [2, 3]}
  - z:
      - 4
"""


def test_every_value_knows_its_line() -> None:
    document = parse(TEXT, "a.yaml")
    assert document.question == "How many lines?"
    assert document.data == {"name": "a", "list": [{"x": 1e-3, "y": [2, 3]}, {"z": [4]}]}
    assert {show(keys): line for keys, line in document.lines.items()} == {
        "the file": 1,
        "name": 2,
        "list": 3,
        "list[0]": 4,
        "list[0].x": 4,
        "list[0].y": 4,
        "list[0].y[0]": 4,
        "list[0].y[1]": 4,
        "list[1]": 5,
        "list[1].z": 5,
        "list[1].z[0]": 6,
    }


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("1.5E+2", 150.0),
        (".5", 0.5),
        ("1.", 1.0),
        ("-3", -3),
        ("50_000", 50_000),
        ("010", 10),
        ("'5'", "5"),
        ("", None),
        ("~", None),
        ("null", None),
        ("true", True),
        ("False", False),
        # What YAML 1.1 would have made False, True, 5400, a date, and infinity:
        ("off", "off"),
        ("yes", "yes"),
        ("1:30:00", "1:30:00"),
        ("2024-01-01", "2024-01-01"),
        (".inf", ".inf"),
    ],
)
def test_scalars(text: str, value: object) -> None:
    read = parse(f"key: {text}\n", "a.yaml").data["key"]
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("twenty", 'key is the text "twenty"'),
        ("", "key is empty"),
        ("1e-3", "key is 1e-3"),
        ("50_000", "key is 50_000"),
        ("True", "key is True"),
        ("[1]", "key is a list"),
        ("[]", "key is an empty list"),
        ("{a: 1}", "key is a mapping"),
    ],
)
def test_found_quotes_the_users_text(text: str, found: str) -> None:
    document = parse(f"key: {text}\n", "a.yaml")
    assert document.found(("key",)) == found
    assert document.found(("key", 7, "deeper")) == found  # what is not there is read as its owner


def test_an_inserted_value_stands_where_another_does() -> None:
    document = parse(TEXT, "a.yaml")
    document.insert(("list", 1, "steps"), [5, 1e-3], ("list", 1, "z"), "of mine")
    document.insert(("list", 1, "clip"), True, ("list", 1, "z"), "of mine")
    assert document.data["list"][1] == {"z": [4], "steps": [5, 1e-3], "clip": True}  # type: ignore[index]
    assert document.lines["list", 1, "steps", 1] == document.lines["list", 1, "z"] == 5
    assert document.found(("list", 1, "steps", 1)) == "list[1].steps[1] is 0.001 (of mine)"
    assert document.found(("list", 1, "clip", 0)) == "list[1].clip is true (of mine)"


def test_one_line_reads_back() -> None:
    row = {"sampler": "ddim", "eta": [0, 0.5, "sigma-hat"], "clip": True, "file": "a: b.txt"}
    text = one_line(row)
    assert text == "{sampler: ddim, eta: [0, 0.5, sigma-hat], clip: true, file: 'a: b.txt'}"
    assert parse(f"row: {text}", "a.yaml").data["row"] == row
    assert "\n" not in one_line({"times": list(range(1000))})


def test_problems_come_together_in_the_order_of_the_file() -> None:
    document = parse("a: 1\nb: 2\n", "a.yaml")
    document.stop_at_problems()  # none yet
    document.problem(("b",), "b is wrong.")
    document.problem(("a",), "a is wrong.")
    document.problem(("b",), "b is wrong.")
    with pytest.raises(SweepError) as raised:
        document.stop_at_problems()
    assert str(raised.value) == "a.yaml, line 1: a is wrong.\na.yaml, line 2: b is wrong."


def test_duplicate_keys() -> None:
    document = parse("a: 1\nb:\n  - {x: 1,\n     x: 2}\na: 3\n", "a.yaml")
    assert document.data == {"a": 1, "b": [{"x": 1}]}
    assert document.problems == [
        (4, 'the key "x" stands twice in b[0], first on line 3; keep one of them.'),
        (5, 'the key "a" stands twice in the file, first on line 1; keep one of them.'),
    ]


def test_a_key_is_a_word() -> None:
    assert parse("a: 1\n? [1, 2]\n: 3\n", "a.yaml").problems == [
        (2, "a key in the file is not a plain word.")
    ]


LOOK = "Look for an unclosed bracket or quote, a missing colon, or indentation here or just above."


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "a: [1, 2\nb: 3\n",
            "a.yaml, line 2, column 2: this is not YAML (while parsing a flow sequence expected "
            f"',' or ']', but got ':'). {LOOK}",
        ),
        (
            "a: 1\n b: 2\n",
            "a.yaml, line 2, column 3: this is not YAML (mapping values are not allowed here). "
            + LOOK,
        ),
        (
            "a:\n\t- b\n",
            "a.yaml, line 2, column 1: this is not YAML (while scanning for the next token found "
            f"character '\\t' that cannot start any token). {LOOK}",
        ),
        (
            "a: 1\n---\nb: 2\n",
            "a.yaml, line 2, column 1: this is not YAML (expected a single document in the stream "
            f"but found another document). {LOOK}",
        ),
        (
            "a: 1\nb: \x07\n",
            "a.yaml, line 2: the control character U+0007 cannot stand in YAML; remove it.",
        ),
        (
            "a: &x 1\nb: *x\n",
            "a.yaml, line 1: here stands a YAML anchor, which sweep files do without; write the "
            "value itself.",
        ),
        (
            "a: 1\nb: !!python/object:os.system {}\n",
            "a.yaml, line 2: here stands a YAML tag, which sweep files do without; write the value "
            "itself.",
        ),
        (
            "- a\n",
            'a.yaml, line 1: the file is not a mapping; write lines of the form "key: value".',
        ),
    ],
)
def test_text_that_is_no_mapping(text: str, message: str) -> None:
    with pytest.raises(SweepError) as raised:
        parse(text, "a.yaml")
    assert str(raised.value) == message


@pytest.mark.parametrize("text", ["", "\n", "# Only a question?\n"])
def test_an_empty_file_has_no_keys(text: str) -> None:
    assert parse(text, "a.yaml").data == {}


def test_missing_file(tmp_path: Path) -> None:
    (tmp_path / "quickstart.yaml").write_text("a: 1\n")
    path = tmp_path / "quikstart.yaml"
    with pytest.raises(SweepError) as raised:
        read(path)
    assert str(raised.value) == f'{path}: there is no such file. Did you mean "quickstart.yaml"?'


def test_folder_instead_of_file(tmp_path: Path) -> None:
    with pytest.raises(SweepError) as raised:
        read(tmp_path)
    assert str(raised.value) == f"{tmp_path}: the file cannot be read (Is a directory)."


def test_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(b"# \xe9tude\n")
    with pytest.raises(SweepError) as raised:
        read(path)
    assert str(raised.value) == f"{path}: byte 2 is not UTF-8 text; save the file as UTF-8."
