"""YAML that remembers its lines: plain data, and for each value where and how a person wrote it.

pyyaml composes the nodes, so every key and value knows its line. The values are read by the core
schema of YAML 1.2, because the rules of 1.1 surprise: there `1e-3` is text, `on` and `no` are
truth values, `1:30` is the number 90 and `010` is 8. Here numbers are what a physicist writes
(`1e-3`, `50_000`), truth is `true` or `false`, and everything else is text. Anchors, aliases and
tags are refused: what a file says stands where it says it.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from bench.errors import SweepError, nearest

Yaml: TypeAlias = "bool | int | float | str | list[Yaml] | dict[str, Yaml] | None"
Keys: TypeAlias = tuple[str | int, ...]
"""The way to a value: ("grid", 1, "eta", 0) is what a person calls grid[1].eta[0]."""


def show(keys: Keys) -> str:
    """The path as a person writes it.

    >>> show(("grid", 1, "eta", 0))
    'grid[1].eta[0]'
    """
    text = ""
    for key in keys:
        text += f"[{key}]" if isinstance(key, int) else f".{key}" if text else key
    return text or "the file"


def one_line(data: Mapping[str, Yaml]) -> str:
    """A mapping as YAML on one line, as a grid row is written.

    >>> one_line({"sampler": "ddim", "eta": [0, 1]})
    '{sampler: ddim, eta: [0, 1]}'
    """
    text: str = yaml.safe_dump(
        dict(data), default_flow_style=True, sort_keys=False, width=10**6, allow_unicode=True
    )
    return text.strip()


@dataclass
class Document:
    """A YAML file as data, with the place of each value and the problems found so far.

    Problems are collected rather than raised one by one, so that a person sees all of them at
    once; `stop_at_problems` turns them into one error, in the order of the file.
    """

    file: str
    question: str = ""
    data: dict[str, Yaml] = field(default_factory=dict)
    lines: dict[Keys, int] = field(default_factory=dict)
    texts: dict[Keys, str] = field(default_factory=dict)
    problems: list[tuple[int, str]] = field(default_factory=list)

    def written(self, keys: Keys) -> Keys:
        """The longest part of `keys` that stands in the file (`eta: 1` has no eta[0])."""
        while keys not in self.lines:
            keys = keys[:-1]
        return keys

    def value(self, keys: Keys) -> Yaml:
        """The value at what is written of `keys`."""
        value: Yaml = self.data
        for key in self.written(keys):
            value = value[key]  # type: ignore[index]
        return value

    def found(self, keys: Keys) -> str:
        """What stands there, in the user's own text: 'steps[2] is the text "twenty"'."""
        keys = self.written(keys)
        match value := self.value(keys):
            case None:
                what = "empty"
            case str():
                what = f'the text "{value}"'
            case list():
                what = "a list" if value else "an empty list"
            case dict():
                what = "a mapping"
            case _:
                what = self.texts[keys]
        return f"{show(keys)} is {what}"

    def insert(self, keys: Keys, value: Yaml, at: Keys, origin: str) -> None:
        """Adds a value as though it stood in the line of `at`; messages quote its `origin`."""
        self.lines[keys] = self.lines[at]
        parent: Any = self.value(keys[:-1])
        parent[keys[-1]] = value
        if isinstance(value, list):
            for k, item in enumerate(value):
                self.insert((*keys, k), item, at, origin)
        else:
            self.texts[keys] = f"{json.dumps(value)} ({origin})"

    def problem(self, keys: Keys, text: str) -> None:
        """Notes a problem with the value (or the missing value) at `keys`."""
        problem = (self.lines[self.written(keys)], text)
        if problem not in self.problems:
            self.problems.append(problem)

    def unexpected(self, keys: Keys, expected: str, advice: str = "") -> None:
        """Notes that something else is expected at `keys` than what stands there.

        Words in double quotes within `expected` are what may be written: for text that is none of
        them, the nearest is suggested.
        """
        value = self.value(keys)
        near = nearest(value, re.findall(r'"([^"]*)"', expected)) if isinstance(value, str) else ""
        self.problem(keys, f"{self.found(keys)}; expected {expected}.{near}{advice}")

    def stop_at_problems(self) -> None:
        """Raises one SweepError with a line per problem, if there are any."""
        if self.problems:
            ordered = sorted(self.problems, key=lambda problem: problem[0])
            raise SweepError("\n".join(f"{self.file}, line {n}: {text}" for n, text in ordered))


def read(path: Path | str) -> Document:
    """Reads a YAML file whose top level is a mapping; an empty file has no keys.

    Raises:
        SweepError: there is no such file, it is not UTF-8, not YAML, or holds no mapping.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        here = sorted(p.name for p in path.parent.glob("*.y*ml"))
        raise SweepError(f"{path}: there is no such file.{nearest(path.name, here)}") from None
    except UnicodeDecodeError as error:
        raise SweepError(
            f"{path}: byte {error.start} is not UTF-8 text; save the file as UTF-8."
        ) from None
    except OSError as error:
        raise SweepError(f"{path}: the file cannot be read ({error.strerror}).") from None
    return parse(text, str(path))


def parse(text: str, file: str) -> Document:
    """Reads YAML text; `file` is the name that errors give.

    Duplicate keys are noted as problems; text that is not YAML, or whose top level is no
    mapping, is a SweepError at once.
    """
    document = Document(file, _question(text))
    try:
        loader = _Loader(text)
        try:
            root = loader.get_single_node()
        finally:
            loader.dispose()
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise SweepError(
            f"{file}, line {line}: the control character {_name(error.character)} cannot stand "
            "in YAML; remove it."
        ) from None
    except yaml.MarkedYAMLError as error:
        raise SweepError(_broken(file, error)) from None
    except _Refused as refused:
        raise SweepError(
            f"{file}, line {refused.line}: here stands a YAML {refused.what}, which sweep files "
            "do without; write the value itself."
        ) from None
    document.lines[()] = 1
    if root is None:
        return document
    if not isinstance(root, yaml.MappingNode):
        raise SweepError(
            f"{file}, line {root.start_mark.line + 1}: the file is not a mapping; write lines "
            'of the form "key: value".'
        )
    data = _build(root, (), text, document)
    assert isinstance(data, dict)
    document.data = data
    return document


def _name(character: str | int) -> str:
    """The code point as U+0007; pyyaml declares text and gives a number."""
    return f"U+{character if isinstance(character, int) else ord(character):04X}"


def _question(text: str) -> str:
    """The first line if it is a comment: the question that the file answers."""
    first = text.lstrip("\ufeff").lstrip().split("\n", 1)[0]
    return first.lstrip("#").strip() if first.startswith("#") else ""


def _broken(file: str, error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
    why = " ".join(part for part in (error.context, error.problem) if part)
    return (
        f"{file}{where}: this is not YAML ({why}). Look for an unclosed bracket or quote, a "
        "missing colon, or indentation here or just above."
    )


class _Refused(Exception):
    """YAML has it, sweep files do not."""

    def __init__(self, what: str, mark: yaml.Mark) -> None:
        super().__init__(what)
        self.what, self.line = what, mark.line + 1


class _Loader(yaml.SafeLoader):
    """SafeLoader with the scalars of YAML 1.2, without anchors, aliases and tags."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        for what in ("anchor", "tag"):  # an alias is an event with an anchor and nothing else
            if getattr(event, what, None):
                raise _Refused(what, event.start_mark)
        return super().compose_node(parent, index)


_INT = re.compile(r"[-+]?[0-9][0-9_]*$")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9][0-9_]*(\.[0-9]*)?)([eE][-+]?[0-9]+)?$")
_DIGITS = list("-+0123456789")
for _tag, _pattern, _first in (
    ("null", re.compile(r"(~|null|Null|NULL|)$"), ["~", "n", "N", ""]),
    ("bool", re.compile(r"(true|True|TRUE|false|False|FALSE)$"), list("tTfF")),
    ("int", _INT, _DIGITS),
    ("float", _FLOAT, [*_DIGITS, "."]),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", _pattern, _first)


def _build(node: yaml.Node, keys: Keys, source: str, document: Document) -> Yaml:
    """The value of a node; places and problems go into `document`."""
    document.lines.setdefault(keys, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, keys, source, document)
    if isinstance(node, yaml.SequenceNode):
        return [_build(v, (*keys, i), source, document) for i, v in enumerate(node.value)]
    document.texts[keys] = source[node.start_mark.index : node.end_mark.index]
    return _scalar(node)


def _mapping(
    node: yaml.MappingNode, keys: Keys, source: str, document: Document
) -> dict[str, Yaml]:
    data: dict[str, Yaml] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            document.problems.append((line, f"a key in {show(keys)} is not a plain word."))
            continue
        key = key_node.value
        path = (*keys, key)
        if key in data:
            document.problems.append(
                (
                    line,
                    f'the key "{key}" stands twice in {show(keys)}, first on line '
                    f"{document.lines[path]}; keep one of them.",
                )
            )
            continue
        document.lines[path] = line
        data[key] = _build(value_node, path, source, document)
    return data


def _scalar(node: yaml.Node) -> Yaml:
    text: str = node.value
    match node.tag.rpartition(":")[2]:
        case "null":
            return None
        case "bool":
            return text.lower() == "true"
        case "int":
            return int(text)
        case "float":
            return float(text)
        case _:
            return text
