"""Conversations as data: reads the files in tests/conversations.

A conversation says, line by line, what clients send and what the broker must answer; the README
beside the files describes the language. `conversation_play` plays it against a broker.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from amqpd.testing.conversation_frames import (
    CLOSES,
    CONTENT_METHODS,
    METHODS,
    PROPERTIES,
    cause_ids,
)
from amqpd.testing.conversation_values import Expression, parse_expression

# What may stand behind `<` apart from a method.
EXPECTATIONS = ("closed", "nothing", "heartbeat", "raw", "?")
# What may stand behind `>` apart from a method.
FRAMES = ("heartbeat", "raw", "frame", "protocol", "method", "header", "body")
# Names that stand beside the fields of a method.
_EXTRAS = {"basic.publish": ("body", "split")}
_CONTENT_EXTRAS = ("body", "properties", "body_frames")
_CONNECT_OPTIONS = (
    "user", "password", "virtual_host", "channel_max", "frame_max", "heartbeat", "capabilities",
    "client_properties",
)  # fmt: skip


class ConversationError(ValueError):
    """A line of a conversation that cannot be read; the text names file and line."""


@dataclass(frozen=True)
class Step:
    """One line: who does what.

    `verb` is `>` (the client sends), `<` (the broker must answer), `connects`, `opens`, `closes`,
    `drops`, `stops` (the broker) or `wait`. `what` is a method's name or one of FRAMES or
    EXPECTATIONS. Of an expectation `also` are those that may come before or after it, and
    `differences` what RabbitMQ 3.10 answers instead.
    """

    number: int
    verb: str
    who: str = ""
    channel: int | None = None
    what: str = ""
    arguments: dict[str, Expression] = field(default_factory=dict)
    words: tuple[Expression, ...] = ()
    reason: str = ""
    also: list["Step"] = field(default_factory=list)
    differences: list["Step"] = field(default_factory=list)
    text: str = ""


@dataclass(frozen=True)
class Conversation:
    """A title, the brokers that it is for, and its steps.

    `only` is "" for a conversation that every broker must pass, "4.x" for one that RabbitMQ 3.10
    cannot, "core" for one that only amqpd's core can (it needs a clock of its own, say).
    `permissions` are what guest may configure, write and read, where that is not everything.
    """

    file: str
    number: int
    title: str
    only: str = ""
    permissions: dict[str, str] = field(default_factory=dict)
    steps: tuple[Step, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.file}: {self.title}"


def load(path: Path) -> list[Conversation]:
    """The conversations of a file.

    Raises:
        ConversationError: with the file's name and the number of the line that is wrong.
    """
    return parse(path.read_text(encoding="utf-8"), path.stem)


def parse(text: str, file: str) -> list[Conversation]:
    """The conversations in a text; `file` is the name to give in messages.

    Raises:
        ConversationError: with the number of the line that is wrong.
    """
    conversations: list[Conversation] = []
    steps: list[Step] = []
    for number, line in _lines(text):
        try:
            if line.startswith("==="):
                _finish(conversations, steps)
                conversations.append(Conversation(file, number, line.strip("= ")))
            elif not conversations:
                raise ValueError("a conversation starts with `=== title`")
            elif not steps and (head := _head(line)):
                conversations[-1] = replace(conversations[-1], **head)
            else:
                _add(steps, _step(number, line))
        except ValueError as error:
            raise ConversationError(f"{file}, line {number}: {error}") from error
    _finish(conversations, steps)
    titles = [conversation.title for conversation in conversations]
    for title in titles:
        if titles.count(title) > 1:
            raise ConversationError(f"{file}: two conversations are called {title!r}")
    return conversations


def _head(line: str) -> dict[str, Any]:
    """What a line behind the title says about the whole conversation; nothing for other lines."""
    if only := re.fullmatch(r"only (4\.x|core): \S.*", line):
        return {"only": only[1]}
    if may := re.fullmatch(r"guest may (.+)", line):
        _, arguments, _ = _words(may[1])
        _check_names("guest", arguments, ("configure", "write", "read"))
        return {"permissions": {name: item.value({}) for name, item in arguments.items()}}
    return {}


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines with their numbers, continuation lines joined, comments and empty lines left out."""
    number, joined = 0, ""
    for current, line in enumerate(text.splitlines(), 1):
        if line.startswith(" ") and line.strip() and joined:
            joined += f" {line.strip()}"
            continue
        if joined:
            yield number, joined
        number, joined = current, "" if line.startswith("#") else line.strip()
    if joined:
        yield number, joined


def _finish(conversations: list[Conversation], steps: list[Step]) -> None:
    """Gives the last conversation its steps."""
    if not conversations:
        return
    last = conversations[-1]
    if not steps:
        raise ConversationError(f"{last.file}, line {last.number}: a conversation without lines")
    conversations[-1] = replace(last, steps=tuple(steps))
    steps.clear()


def _add(steps: list[Step], step: Step) -> None:
    """Appends a step; `&` and `~` lines go into the expectation before them."""
    if step.verb not in "&~":
        steps.append(step)
        return
    before = steps[-1] if steps else None
    if before is None or before.verb != "<" or before.who != step.who:
        raise ValueError(f"`{step.who}{step.verb}` must follow an expectation of {step.who}")
    if step.verb == "&":
        before.also.append(step)
        return
    if not step.reason:
        raise ValueError("a known difference needs its reason behind `;`")
    (before.also[-1] if before.also else before).differences.append(step)


def _step(number: int, line: str) -> Step:
    if wait := re.fullmatch(r"wait (\S+)", line):
        return Step(number, "wait", words=(parse_expression(wait[1]),), text=line)
    if line == "the broker stops":
        return Step(number, "stops", text=line)
    head = re.match(r"([a-z])([<>&~])\s+|([a-z]) (connects|opens|closes|drops)(?:\s+|$)", line)
    if not head:
        raise ValueError(f"cannot read {line!r}")
    who, verb = head[1] or head[3], head[2] or head[4]
    words, arguments, reason = _words(line[head.end() :])
    if len(verb) > 1:
        _check_directive(verb, words, arguments)
        expressions = tuple(parse_expression(repr(w) if w == "raw" else w) for w in words)
        return Step(number, verb, who, None, "", arguments, expressions, reason, text=line)
    channel = int(words.pop(0)) if words and words[0].isdigit() else None
    if not words:
        raise ValueError("a method's name is missing")
    what = words.pop(0)
    if what == "method":
        what = f"method {words.pop(0)}"
    expressions = tuple(map(parse_expression, words))
    step = Step(number, verb, who, channel, what, arguments, expressions, reason, text=line)
    (_check_sent if verb == ">" else _check_expected)(step)
    return step


def _words(rest: str) -> tuple[list[str], dict[str, Expression], str]:
    """Splits at spaces that are not inside quotes or brackets: words, name=value pairs, reason."""
    parts, depth, quote, start = [], 0, "", 0
    reason = ""
    index = 0
    while index < len(rest):
        letter = rest[index]
        if quote:
            index += letter == "\\"
            quote = "" if letter == quote else quote
        elif letter in "\"'":
            quote = letter
        elif letter in "([{":
            depth += 1
        elif letter in ")]}":
            depth -= 1
        elif letter == " " and not depth:
            parts.append(rest[start:index])
            start = index + 1
        elif letter == ";" and not depth:
            reason = rest[index + 1 :].strip()
            rest = rest[:index]
            break
        index += 1
    if quote or depth:
        raise ValueError("a quote or a bracket is not closed")
    parts.append(rest[start:])
    words: list[str] = []
    arguments: dict[str, Expression] = {}
    for part in filter(None, (part.strip() for part in parts)):
        if pair := re.match(r"([a-z_]+)=", part):
            source = part[pair.end() :]
            if pair[1] == "cause":
                arguments |= _cause(source)
            elif pair[1] in arguments:
                raise ValueError(f"{pair[1]} is given twice")
            else:
                arguments[pair[1]] = parse_expression(source)
        else:
            words.append(part)
    return words, arguments, reason


def _cause(name: str) -> dict[str, Expression]:
    class_id, method_id = cause_ids(name)
    return {
        "class_id": parse_expression(str(class_id)),
        "method_id": parse_expression(str(method_id)),
    }


def _check_directive(verb: str, words: list[str], arguments: dict[str, Expression]) -> None:
    if verb == "opens" and not words:
        raise ValueError("`opens` needs the numbers of channels")
    if verb == "connects" and words not in ([], ["raw"]):
        raise ValueError("`connects` takes `raw` or name=value options")
    _check_names(verb, arguments, _CONNECT_OPTIONS if verb == "connects" else ())


def _check_sent(step: Step) -> None:
    name = step.what.removeprefix("method ")
    if step.what in FRAMES:
        allowed: tuple[str, ...] = ("end", "size") if step.what == "frame" else ()
        if step.what == "header":
            allowed = ("body_size", *PROPERTIES)
        _check_names(step.what, step.arguments, allowed)
        return
    if name not in METHODS:
        raise ValueError(f"there is no method {name!r}")
    fields = (*METHODS[name].fields, *_EXTRAS.get(step.what, ()))
    if step.what in _EXTRAS:
        fields = (*fields, *PROPERTIES)
    _check_names(name, step.arguments, fields)
    _check_channel(step)


def _check_expected(step: Step) -> None:
    if step.what in EXPECTATIONS:
        _check_names(step.what, step.arguments, ())
        return
    if step.what == "confirms":
        _check_names(step.what, step.arguments, ("first", "last"))
        _check_channel(step)
        return
    if step.what not in METHODS:
        raise ValueError(f"there is no method {step.what!r}")
    fields: tuple[str, ...] = tuple(METHODS[step.what].fields)
    if step.what in CONTENT_METHODS:
        fields = (*fields, *_CONTENT_EXTRAS, *PROPERTIES)
    _check_names(step.what, step.arguments, fields)
    _check_channel(step)
    missing = set(METHODS[step.what].fields) - set(step.arguments)
    if step.what in CLOSES and step.verb != "~" and missing:
        raise ValueError("an expected close names reply_code, reply_text and cause")


def _check_names(what: str, arguments: dict[str, Expression], allowed: tuple[str, ...]) -> None:
    for name in arguments:
        if name not in allowed:
            raise ValueError(f"{what} has no {name!r}; it has {', '.join(allowed) or 'nothing'}")


def _check_channel(step: Step) -> None:
    if step.channel is None:
        raise ValueError("the number of the channel is missing")
