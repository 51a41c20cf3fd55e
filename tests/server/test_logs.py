"""Logs: one line a record, fields that cannot forge another, and no exception ever."""

import io
import json
import logging
import re

import pytest

from amqpd.config import Log
from amqpd.log import EventLog
from amqpd.server.logs import StderrHandler, configure_logs, wants_colour


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return super().isatty() or True


@pytest.fixture(autouse=True)
def logging_as_before():
    root, ours = logging.getLogger(), logging.getLogger("amqpd")
    levels = root.level, ours.level
    yield
    for handler in [one for one in root.handlers if isinstance(one, StderrHandler)]:
        root.removeHandler(handler)
    root.setLevel(levels[0])
    ours.setLevel(levels[1])


def logged(settings: Log, stream: io.StringIO | None = None) -> io.StringIO:
    stream = stream or io.StringIO()
    configure_logs(settings, stream)
    return stream


def test_a_text_line_has_time_level_area_event_and_fields():
    stream = logged(Log())
    EventLog("connection").info("connection closed", peer="127.0.0.1:50112", code=320, after_s=1.5)
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} info    connection  connection closed"
        r" peer=127\.0\.0\.1:50112 code=320 after_s=1\.5\n",
        stream.getvalue(),
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("plain", "plain"),
        ("", '""'),
        ("two words", '"two words"'),
        ('a="b"', '"a=\\"b\\""'),
        ("a\nb", '"a\\nb"'),
        ("\x1b[31mred", '"\\u001b[31mred"'),
        ("\u2028", '"\\u2028"'),
        (b"raw\xff", "raw\\xff"),
        (None, "null"),
        (True, "true"),
        ({"a": [1, b"x"]}, '{"a": [1, "x"]}'),
        (ValueError("no"), "no"),
    ],
)
def test_a_field_in_a_text_line_is_bare_or_quoted_so_that_it_cannot_forge_a_line(value, text):
    stream = logged(Log())
    EventLog("connection").info("seen", field=value)
    assert stream.getvalue().endswith(f"  seen field={text}\n")
    assert stream.getvalue().count("\n") == 1


def test_a_json_line_is_one_object_with_the_fields_beside_the_event():
    stream = logged(Log(format="json"))
    EventLog("channel").warning(
        "channel error", code=404, text="NOT_FOUND\n", level="odd", raw=b"x"
    )
    line = json.loads(stream.getvalue())
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("ts"))
    assert line == {
        "level": "warning",
        "area": "channel",
        "event": "channel error",
        "code": 404,
        "text": "NOT_FOUND\n",
        "field_level": "odd",
        "raw": "x",
    }
    assert stream.getvalue().count("\n") == 1


@pytest.mark.parametrize("form", ["text", "json"])
def test_an_exception_brings_its_traceback(form):
    stream = logged(Log(format=form))
    try:
        raise RuntimeError("broken")
    except RuntimeError as error:
        EventLog("core").exception("bug in a session", error, method="basic.publish")
    assert "RuntimeError: broken" in stream.getvalue()
    assert "Traceback" in stream.getvalue()
    assert "basic.publish" in stream.getvalue()


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        ("debug", ["debug", "info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("warning", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
def test_only_the_level_in_force_and_above_is_written(level, expected):
    stream = logged(Log(level=level, format="json"))
    log = EventLog("test")
    for name in ("debug", "info", "warning", "error"):
        getattr(log, name)("said")
    assert [json.loads(line)["level"] for line in stream.getvalue().splitlines()] == expected
    assert log.enabled(logging.DEBUG) == (level == "debug")


def test_libraries_are_heard_from_warning_up():
    stream = logged(Log(level="debug"))
    logging.getLogger("trio.test").info("not this")
    logging.getLogger("trio.test").warning("but %s", "this")
    assert "not this" not in stream.getvalue()
    assert "trio.test  but this" in stream.getvalue()


def test_configuring_again_replaces_what_was_configured():
    first, second = logged(Log()), logged(Log(format="json"))
    EventLog("test").info("once")
    assert first.getvalue() == ""
    assert len(second.getvalue().splitlines()) == 1


class Gone(io.StringIO):
    """A pipe whose reader is gone."""

    def flush(self) -> None:
        raise BrokenPipeError(32, "Broken pipe")


def test_a_closed_or_broken_stream_raises_nothing():
    closed = logged(Log())
    closed.close()
    EventLog("test").error("unheard")
    logged(Log(), Gone())
    EventLog("test").error("unheard")


def test_a_record_that_cannot_be_formatted_is_told_and_raises_nothing():
    stream = io.StringIO()
    wrong = logging.LogRecord("library", logging.WARNING, "", 0, "%d", ("not a number",), None)
    StderrHandler(stream).handle(wrong)
    assert "a log record was lost: '%d': TypeError" in stream.getvalue()


@pytest.mark.parametrize(
    ("stream", "environ", "expected"),
    [
        (Terminal(), {}, True),
        (Terminal(), {"NO_COLOR": ""}, True),
        (Terminal(), {"NO_COLOR": "1"}, False),
        (Terminal(), {"TERM": "dumb"}, False),
        (io.StringIO(), {}, False),
        (None, {}, False),
    ],
)
def test_colour_is_for_terminals_and_not_where_no_color_is_set(stream, environ, expected):
    assert wants_colour(stream, environ) is expected


def test_a_closed_stream_is_not_coloured():
    stream = Terminal()
    stream.close()
    assert wants_colour(stream, {}) is False


def test_text_on_a_terminal_is_coloured_and_json_never(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    text = logged(Log(), Terminal())
    EventLog("test").error("seen", peer="a")
    lines = logged(Log(format="json"), Terminal())
    EventLog("test").error("seen", peer="a")
    assert "\x1b[31m" in text.getvalue()
    assert "\x1b" not in lines.getvalue()
