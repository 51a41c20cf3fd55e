"""Reading a configuration file: its tables, and the line on which each key stands."""

import re
from pathlib import Path
from typing import Any, Final

import tomli
from msgspec import Struct

from amqpd.config.problems import ConfigError

HEADER: Final = re.compile(r"\s*\[")


class TomlFile(Struct, frozen=True):
    """A parsed file. `lines` gives the line (from 1) of each path of keys and table names."""

    name: str
    content: dict[str, Any]
    lines: dict[tuple[str, ...], int]

    def line(self, *path: str) -> int:
        """The line of a path, or of the nearest table around it that has one (0: none has)."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 0)


def read_toml(path: Path) -> TomlFile:
    """Read and parse a file; ConfigError if that is not possible, with line and column."""
    try:
        text = path.read_bytes().decode()
    except OSError as error:
        raise ConfigError([f"{path}: cannot be read: {error.strerror or error}"]) from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigError([f"{path}:{line}: is not UTF-8, as TOML must be"]) from error
    try:
        content = tomli.loads(text)
    except tomli.TOMLDecodeError as error:
        raise ConfigError([f"{path}: is not TOML: {error}"]) from error
    return TomlFile(str(path), content, line_numbers(text))


def line_numbers(text: str) -> dict[tuple[str, ...], int]:
    """The line of every table and key of a valid TOML text.

    tomli does not tell positions, so the text is cut into statements: the shortest runs of lines
    that are TOML by themselves (a list or text over several lines is not, until it is closed).
    """
    found: dict[tuple[str, ...], int] = {}
    table: tuple[str, ...] = ()
    statement = ""
    start = 1
    for number, line in enumerate(text.split("\n"), 1):
        if not statement:
            start = number
        statement += line + "\n"
        try:
            parsed = tomli.loads(statement)
        except tomli.TOMLDecodeError:
            continue
        if HEADER.match(statement):
            table = _innermost(parsed)
            found.setdefault(table, start)
        else:
            _add(parsed, table, start, found)
        statement = ""
    return found


def _innermost(parsed: dict[str, Any]) -> tuple[str, ...]:
    """The path that a table's header names: `[a.b]` parses to `{"a": {"b": {}}}`."""
    path: tuple[str, ...] = ()
    inner: Any = parsed
    while isinstance(inner, dict) and inner:
        key, inner = next(iter(inner.items()))
        path += (key,)
    return path


def _add(
    parsed: dict[str, Any], table: tuple[str, ...], line: int, found: dict[tuple[str, ...], int]
) -> None:
    for key, value in parsed.items():
        found.setdefault((*table, key), line)
        if isinstance(value, dict):
            _add(value, (*table, key), line, found)
