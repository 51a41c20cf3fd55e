"""Configurations as text: the example file with every default, and what is in force and why.

Both are TOML that `amqpd --config` reads back.
"""

import textwrap
from inspect import cleandoc
from itertools import groupby
from typing import Any, Final

import msgspec
from msgspec import Struct

from amqpd.config.problems import show_value
from amqpd.config.schema import LISTS, Setting, settings, tables
from amqpd.config.settings import Config
from amqpd.config.sources import Loaded

EXAMPLE_HEAD: Final = """\
# Every setting of amqpd with its default. Uncomment what you change; amqpd refuses unknown names.
#
# Each is also an environment variable: [listen] port is AMQPD_LISTEN__PORT (a list: a,b).
# A flag beats the environment, the environment beats the file, the file beats the default.
#
#   amqpd --config FILE        run with this file
#   amqpd config check FILE    check it
#   amqpd config show          what is in force, and where each value comes from
"""

EXAMPLE_TAIL: Final = """
# Policies, as in RabbitMQ, any number of them: queues and exchanges whose names match the pattern
# get what the definition says. Of several the one with the highest priority counts. apply_to is
# "all", "queues", "exchanges", "classic_queues", "quorum_queues" or "streams".
#[[policies]]
#name = "short-lived"
#pattern = "^tmp\\\\."
#apply_to = "queues"
#priority = 1
#definition = {message-ttl = 60000, max-length = 10000, dead-letter-exchange = "dead"}

# Limits that no policy and no declaration exceeds: of numbers the smaller counts.
#[[operator_policies]]
#name = "limits"
#pattern = ".*"
#apply_to = "queues"
#definition = {max-length = 1000000}
"""


def example() -> str:
    """`conf/amqpd.toml`: every setting, commented out, with its default and its sentence."""
    parts = [EXAMPLE_HEAD]
    for table, members in _by_table():
        parts.append(f"\n{_comment(cleandoc(tables()[table].__doc__ or ''))}[{table}]\n")
        for setting in members:
            parts.append(
                f"\n{_comment(setting.meta.description or '')}"
                f"#{setting.key} = {show_value(setting.default)}\n"
            )
    return "".join(parts) + EXAMPLE_TAIL


def in_force(loaded: Loaded, *, secrets: bool = False) -> str:
    """Every setting with its value and origin; passwords only if `secrets`, else commented out."""
    file = loaded.sources.file
    parts = [f"# configuration file: {file or 'none'}\n"]
    for table, members in _by_table():
        lines = [
            (_assignment(loaded.config, one, secrets), _origin(loaded, one)) for one in members
        ]
        width = max(len(assignment) for assignment, _ in lines)
        parts.append(f"\n[{table}]\n")
        parts.extend(f"{assignment:<{width}}  # {origin}\n" for assignment, origin in lines)
    for name in LISTS:
        for entry in getattr(loaded.config, name):
            values = msgspec.structs.asdict(entry).items()
            parts.append(f"\n[[{name}]]\n")
            parts.extend(f"{key} = {show_value(value)}\n" for key, value in values)
    return "".join(parts)


def changed(config: Config) -> int:
    """How many settings differ from their defaults."""
    changes = [setting for setting in settings().values() if _is_changed(config, setting)]
    return len(changes) + len(config.policies) + len(config.operator_policies)


def _is_changed(config: Config, setting: Setting) -> bool:
    return bool(_value(config, setting) != setting.default)


def _by_table() -> list[tuple[str, list[Setting]]]:
    return [
        (table, list(members))
        for table, members in groupby(settings().values(), key=lambda setting: setting.table)
    ]


def _comment(text: str) -> str:
    return "".join(f"# {line}\n" for line in textwrap.wrap(" ".join(text.split()), 96))


def _value(config: Config, setting: Setting) -> Any:
    table: Struct = getattr(config, setting.table)
    return getattr(table, setting.key)


def _assignment(config: Config, setting: Setting, secrets: bool) -> str:
    if setting.secret and not secrets:
        return f"# {setting.key} is hidden; --passwords shows it"
    return f"{setting.key} = {show_value(_value(config, setting))}"


def _origin(loaded: Loaded, setting: Setting) -> str:
    return str(loaded.sources.origins[setting.table, setting.key])
