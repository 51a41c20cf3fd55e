"""What can be wrong with a configuration, and how it is told: one line a problem.

A line names the place (file and line, variable or flag), the table and key, the value, what it
may be, and for an unknown name the nearest known one.
"""

import difflib
import json
from collections.abc import Iterable
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct

from amqpd.config.schema import LISTS, Setting, may_be, settings, tables
from amqpd.config.settings import Policy

HIDDEN: Final = "(hidden)"

RABBITMQ_NAMES: Final = {
    "channel_max": ("connection", "channels_max"),
    "cluster_name": ("node", "name"),
    "connection_max": ("connection", "connections_max"),
    "consumer_max_per_channel": ("consumer", "per_channel_max"),
    "default_consumer_prefetch": ("consumer", "prefetch_default"),
    "default_pass": ("user", "password"),
    "default_user": ("user", "name"),
    "default_user_tags": ("user", "tags"),
    "default_vhost": ("vhost", "default"),
    "disk_free_limit": ("alarms", "disk_free_bytes_min"),
    "frame_max": ("connection", "frame_bytes_max"),
    "handshake_timeout": ("connection", "handshake_timeout_s"),
    "heartbeat": ("connection", "heartbeat_s"),
    "listeners": ("listen", "port"),
    "loopback_users": ("user", "loopback_users"),
    "max_message_size": ("message", "size_bytes_max"),
    "vm_memory_high_watermark": ("alarms", "memory_share_max"),
}
"""What RabbitMQ calls a setting, for those whose name here may not be found by likeness."""


class Origin(Struct, frozen=True):
    """Where a value comes from. `name` is the file, variable or flag; `line` only for a file."""

    kind: Literal["default", "file", "environment", "flag"]
    name: str = ""
    line: int = 0

    def __str__(self) -> str:
        """As `config show` prints it: `default`, `amqpd.toml:3`, `env NAME`, `flag --port`."""
        if self.kind == "default":
            return "default"
        if self.kind == "file":
            return self.place
        return f"{'env' if self.kind == 'environment' else 'flag'} {self.name}"

    @property
    def place(self) -> str:
        """As an error begins: `amqpd.toml:3`, `AMQPD_LISTEN__PORT`, `--port`."""
        if self.kind == "default":
            return "default"
        return f"{self.name}:{self.line}" if self.line else self.name


class ConfigError(Exception):
    """A configuration that cannot be used. `problems` are lines, each complete by itself."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


def bad_value(origin: Origin, setting: Setting, value: Any, detail: str = "") -> str:
    """The value is of the wrong type or impossible; `detail` says more where it is known."""
    shown = HIDDEN if setting.secret else show_value(value)
    because = f" ({detail})" if detail else ""
    near = difflib.get_close_matches(str(value), setting.choices, n=1)
    return _line(
        f"{origin.place}: [{setting.table}] {setting.key} = {shown} is not possible{because}",
        "".join(near),
        f"it may be {may_be(setting)}",
    )


def bad_entry(origin: Origin, name: str, number: int, why: str) -> str:
    """One of the tables of a `[[name]]` is not what it may be; `why` is msgspec's."""
    fields = [info.name for info in msgspec.structs.fields(Policy)]
    what = why.replace("`", "").replace(" - at $.", " at ")
    return _line(
        f"{origin.place}: [[{name}]] number {number} is not possible ({what})",
        "",
        f"it has {', '.join(fields)}",
    )


def unknown_key(origin: Origin, table: str, key: str, value: Any) -> str:
    """The table exists, the key does not."""
    keys = [other for there, other in settings() if there == table]
    near = difflib.get_close_matches(key, keys, n=1)
    return _line(
        f"{origin.place}: [{table}] {key} = {_brief(key, value)} is unknown",
        near[0] if near else _near_setting(key),
        f"[{table}] has {', '.join(keys)}",
    )


def unknown_table(origin: Origin, table: str) -> str:
    """There is no such table."""
    near = difflib.get_close_matches(table, tables(), n=1)
    return _line(
        f"{origin.place}: the table [{table}] is unknown",
        f"[{near[0]}]" if near else _near_setting(table),
        _all_tables(),
    )


def outside_table(origin: Origin, key: str, value: Any) -> str:
    """A key stands above the first table."""
    shown = f"{origin.place}: {key} = {_brief(key, value)}"
    if key in tables():
        return f"{shown} is not possible; {key} is a table: [{key}]"
    return _line(f"{shown} stands in no table", _near_setting(key), _all_tables())


def unknown_variable(name: str, known: Iterable[str]) -> str:
    """An environment variable begins with AMQPD_ and is no setting's."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1)
    if not near:
        # AMQPD_PORT for AMQPD_LISTEN__PORT: the table was left out, the key is right.
        near = [variable for variable in known if variable.endswith("__" + name[len("AMQPD_") :])]
    return _line(
        f"{name}: there is no such setting", "".join(near[:1]), "a name is AMQPD_TABLE__KEY"
    )


def show_value(value: Any) -> str:
    """A value as it would stand in a TOML file, as far as it has a TOML form."""
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(show_value, value))}]"
    if isinstance(value, str):
        return _toml_text(value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key} = {show_value(item)}' for key, item in value.items())}}}"
    return str(value)


def _toml_text(value: str) -> str:
    # JSON's escapes are TOML's, but for DEL, which TOML alone wants escaped.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _brief(key: str, value: Any) -> str:
    """The value of an unknown key; hidden if the key reads like one that holds a secret."""
    if isinstance(value, dict):
        return "{...}"
    lower = key.lower()
    secrets = [one.key for one in settings().values() if one.secret]
    told = any(word in lower for word in ("pass", "pw", "secret", "token"))
    return HIDDEN if told or difflib.get_close_matches(lower, secrets, n=1) else show_value(value)


def _near_setting(key: str) -> str:
    """`[table] key` of the setting most likely meant by a key in the wrong place, or nothing."""
    if key in RABBITMQ_NAMES:
        table, near = RABBITMQ_NAMES[key]
        return f"[{table}] {near}"
    by_key = {other: table for table, other in settings()}
    likely = difflib.get_close_matches(key, by_key, n=1)
    return f"[{by_key[likely[0]]}] {likely[0]}" if likely else ""


def _line(problem: str, near: str, possible: str) -> str:
    if near:
        return f"{problem}; did you mean {near}? {possible[0].upper()}{possible[1:]}"
    return f"{problem}; {possible}"


def _all_tables() -> str:
    known = [*(f"[{table}]" for table in tables()), *(f"[[{name}]]" for name in LISTS)]
    return f"there are {', '.join(known)}"
