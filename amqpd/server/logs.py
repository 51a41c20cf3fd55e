"""Logs on the standard `logging` module: an event, its fields, as text or as JSON lines on stderr.

    2026-03-01 12:00:00.123 warning connection  handshake timed out peer=127.0.0.1:50112 after_s=10
    {"ts": "2026-03-01T11:00:00.123Z", "level": "warning", "area": "connection", "event": ...}

An event is a constant text that can be searched for; whatever varies is a field. What clients sent
may stand in fields only: it is quoted there, so that it cannot forge a line or colour a terminal.
Libraries' records (trio, ...) pass through the same handler, from level warning up.
"""

import json
import logging
import os
import sys
import time
import traceback
from collections.abc import Mapping
from typing import Any, Final, TextIO

from amqpd.config.settings import Log
from amqpd.log import FIELDS, ROOT

COLOURS: Final = {"debug": "2", "info": "32", "warning": "33", "error": "31", "critical": "31;1"}


def configure_logs(settings: Log, stream: TextIO | None = None) -> None:
    """Send all records to `stream` (standard error), as the settings say. May be called again."""
    stream = sys.stderr if stream is None else stream
    formatter: logging.Formatter
    if settings.format == "json":
        formatter = JsonFormatter()
    else:
        formatter = TextFormatter(colour=wants_colour(stream, os.environ))
    handler = StderrHandler(stream)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    for old in [one for one in root.handlers if isinstance(one, StderrHandler)]:
        root.removeHandler(old)
    root.addHandler(handler)
    level = logging.getLevelNamesMapping()[settings.level.upper()]
    logging.getLogger(ROOT).setLevel(level)
    root.setLevel(max(level, logging.WARNING))


def wants_colour(stream: TextIO | None, environ: Mapping[str, str]) -> bool:
    """Whether to colour what is written to a stream: a terminal that can, and no NO_COLOR."""
    if stream is None or environ.get("NO_COLOR") or environ.get("TERM") == "dumb":
        return False
    try:
        return stream.isatty()
    except ValueError:  # it is closed
        return False


class StderrHandler(logging.StreamHandler[TextIO]):
    """Writes records and never raises: a broker must outlive whoever reads its logs."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Tell of a record that could not be written, if that can be told."""
        try:
            self.stream.write(f"a log record was lost: {record.msg!r}: {sys.exception()!r}\n")
            self.stream.flush()
        except (OSError, ValueError, AttributeError):
            # The stream is closed, absent, or its reader gone: there is nowhere left to say so.
            return


class TextFormatter(logging.Formatter):
    """One line a record, for people: local time, level, area, event, fields; then a traceback."""

    def __init__(self, *, colour: bool) -> None:
        super().__init__()
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        level = record.levelname.lower()
        clock = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.created))
        moment = f"{clock}.{int(record.msecs):03d}"
        event = _printable(record.getMessage())
        fields = "".join(
            f" {self._paint('2', name + '=')}{_text_value(value)}"
            for name, value in _fields(record).items()
        )
        line = (
            f"{self._paint('2', moment)} {self._paint(COLOURS.get(level, '0'), f'{level:<7}')}"
            f" {_area(record)}  {event}{fields}"
        )
        trace = _traceback(record)
        return f"{line}\n{trace}" if trace else line

    def _paint(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._colour else text


class JsonFormatter(logging.Formatter):
    """One JSON object a line: ts (UTC), level, area, event, and the fields beside them.

    A field named like one of these four (or `traceback`) is written as `field_NAME`.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The object, without the line's end."""
        clock = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, Any] = {
            "ts": f"{clock}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "area": _area(record),
            "event": record.getMessage(),
        }
        if trace := _traceback(record):
            line["traceback"] = trace
        for name, value in _fields(record).items():
            line[f"field_{name}" if name in line or name == "traceback" else name] = _plain(value)
        return json.dumps(line)


def _area(record: logging.LogRecord) -> str:
    return record.name.removeprefix(f"{ROOT}.")


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    fields = getattr(record, FIELDS, None)
    return fields if isinstance(fields, dict) else {}


def _traceback(record: logging.LogRecord) -> str:
    if not record.exc_info or record.exc_info[1] is None:
        return ""
    return "".join(traceback.format_exception(record.exc_info[1])).rstrip("\n")


def _plain(value: Any) -> Any:
    """What JSON has a form for; everything else as text."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, dict):
        return {str(_plain(key)): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    return str(value)


def _text_value(value: Any) -> str:
    """A field's value in a text line: bare if that is unambiguous, otherwise as JSON."""
    plain = _plain(value)
    if isinstance(plain, float):
        return f"{plain:g}"
    if isinstance(plain, str) and plain and plain.isprintable() and not set(plain) & set(' "='):
        return plain
    return json.dumps(plain)


def _printable(text: str) -> str:
    return text if text.isprintable() else json.dumps(text)
