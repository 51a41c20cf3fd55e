"""Putting a configuration together: defaults, then file, then environment, then flags.

Each later source beats the earlier ones, setting by setting. All problems are found before any is
told, so that a file need not be corrected one run at a time.
"""

import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct

from amqpd.config import environment
from amqpd.config.problems import (
    ConfigError,
    Origin,
    bad_entry,
    bad_value,
    outside_table,
    unknown_key,
    unknown_table,
)
from amqpd.config.schema import LISTS, Key, Setting, settings, tables
from amqpd.config.settings import Config, Policy
from amqpd.config.toml_file import TomlFile, read_toml
from amqpd.config.values import BadValue, checked, from_text

FLAGS: Final[Mapping[str, Key]] = {
    "--bind": ("listen", "bind"),
    "--port": ("listen", "port"),
    "--data-dir": ("storage", "data_dir"),
    "--memory": ("storage", "memory_only"),
    "--log-level": ("log", "level"),
    "--log-format": ("log", "format"),
}

SYSTEM_FILE: Final = Path("/etc/amqpd/amqpd.toml")
DEFAULT: Final = Origin("default")


class Sources(Struct, frozen=True):
    """Where the values of a configuration come from: the file read, if any, and each origin."""

    file: Path | None
    origins: Mapping[Key, Origin]


class Loaded(Struct, frozen=True):
    """A complete, checked configuration, and where it comes from."""

    config: Config
    sources: Sources


class _Assembly:
    """The values collected so far, with their origins, and the problems met."""

    def __init__(self) -> None:
        self.values: dict[Key, Any] = {}
        self.lists: dict[str, list[Policy]] = {}
        self.origins: dict[Key, Origin] = dict.fromkeys(settings(), DEFAULT)
        self.problems: list[str] = []

    def put(self, setting: Setting, value: Any, origin: Origin) -> None:
        """Check a value and let it beat what is there."""
        key = setting.table, setting.key
        try:
            self.values[key] = checked(setting, value)
        except BadValue as error:
            self.problems.append(bad_value(origin, setting, value, str(error)))
        self.origins[key] = origin

    def put_text(self, key: Key, text: str, origin: Origin) -> None:
        """The same for a variable or flag, whose text is first read by the setting's type."""
        setting = settings()[key]
        try:
            value = from_text(setting, text)
        except BadValue as error:
            self.problems.append(bad_value(origin, setting, text, str(error)))
        else:
            self.put(setting, value, origin)

    def put_list(self, name: str, entries: Any, origin: Origin) -> None:
        """Takes the entries of a `[[name]]`."""
        if not isinstance(entries, list):
            self.problems.append(f"{origin.place}: {name} is a list of tables: write [[{name}]]")
            return
        for number, entry in enumerate(entries, 1):
            try:
                self.lists.setdefault(name, []).append(msgspec.convert(entry, Policy))
            except msgspec.ValidationError as error:
                self.problems.append(bad_entry(origin, name, number, str(error)))

    def config(self) -> Config:
        """What was collected, over the defaults; ConfigError if there was any problem."""
        if self.problems:
            raise ConfigError(self.problems)
        by_table: dict[str, dict[str, Any]] = {table: {} for table in tables()}
        for (table, key), value in self.values.items():
            by_table[table][key] = value
        return msgspec.convert({**by_table, **self.lists}, Config)


def load(
    file: Path | None = None,
    *,
    environ: Mapping[str, str],
    flags: Mapping[str, str | Iterable[str]] | None = None,
) -> Loaded:
    """The configuration in force; ConfigError with every problem.

    `storage.data_dir` is filled in, absolute, unless it needs a home that is not there and nothing
    is kept anyway. `file` is the one named by --config; without it `find_file` looks for one.
    `flags` maps names of `FLAGS` to their text, several for --bind, "true" for --memory.
    """
    assembly = _Assembly()
    path = file or find_file(environ)
    if path is not None:
        _take_file(assembly, read_toml(path))
    for name, key, text in environment.given(environ):
        assembly.put_text(key, text, Origin("environment", name))
    assembly.problems.extend(environment.unknown(environ))
    for name, text_or_texts in (flags or {}).items():
        origin = Origin("flag", name)
        if isinstance(text_or_texts, str):
            assembly.put_text(FLAGS[name], text_or_texts, origin)
        else:
            assembly.put(settings()[FLAGS[name]], list(text_or_texts), origin)
    config = _with_data_dir(assembly.config(), assembly.origins["storage", "data_dir"], environ)
    return Loaded(config, Sources(path, assembly.origins))


def load_file(path: Path) -> Loaded:
    """A file over the defaults, and nothing else; ConfigError with every problem."""
    assembly = _Assembly()
    _take_file(assembly, read_toml(path))
    return Loaded(assembly.config(), Sources(path, assembly.origins))


def find_file(environ: Mapping[str, str]) -> Path | None:
    """The file to read when no flag names one.

    AMQPD_CONFIG names it (and it must then exist). Otherwise it is the first that exists of
    `$XDG_CONFIG_HOME/amqpd/amqpd.toml` (without the variable, `~/.config/amqpd/amqpd.toml`) and
    `/etc/amqpd/amqpd.toml`. Never one in the working directory: where a broker is started from
    must not change what it does.
    """
    if named := environ.get(environment.FILE_VARIABLE):
        return Path(expand_home(named, environ))
    config_home = environ.get("XDG_CONFIG_HOME") or expand_home("~/.config", environ)
    places = (Path(config_home, "amqpd", "amqpd.toml"), SYSTEM_FILE)
    # os.path.isfile: a directory that we may not look into is as good as absent.
    return next((place for place in places if os.path.isfile(place)), None)


def default_data_dir(environ: Mapping[str, str], platform: str = sys.platform) -> str:
    """The platform's place for a program's data; it begins with `~` if there is no home."""
    if platform == "darwin":
        return expand_home("~/Library/Application Support/amqpd", environ)
    state_home = environ.get("XDG_STATE_HOME") or expand_home("~/.local/state", environ)
    return os.path.join(state_home, "amqpd")


def data_dir(written: str, environ: Mapping[str, str], platform: str = sys.platform) -> str:
    """The absolute path that a value of `storage.data_dir` means; "" is the platform's place.

    It begins with `~` if there is no home.
    """
    path = expand_home(written, environ) if written else default_data_dir(environ, platform)
    return path if path.startswith("~") else os.path.abspath(path)


def expand_home(path: str, environ: Mapping[str, str]) -> str:
    """The path with a leading `~` replaced; unchanged if there is no home directory."""
    if (path == "~" or path.startswith("~/")) and (home := environ.get("HOME")):
        return home + path[1:]
    return os.path.expanduser(path)


def _with_data_dir(config: Config, origin: Origin, environ: Mapping[str, str]) -> Config:
    path = data_dir(config.storage.data_dir, environ)
    if path.startswith("~") and not config.storage.memory_only:
        setting = settings()["storage", "data_dir"]
        raise ConfigError([bad_value(origin, setting, path, "there is no home directory")])
    storage = msgspec.structs.replace(config.storage, data_dir=path)
    return msgspec.structs.replace(config, storage=storage)


def _take_file(assembly: _Assembly, file: TomlFile) -> None:
    """Put every key of a file; lines come in the file's order, so its problems do too."""
    for table, content in file.content.items():
        origin = Origin("file", file.name, file.line(table))
        if table in LISTS:
            assembly.put_list(table, content, origin)
        elif not isinstance(content, dict):
            assembly.problems.append(_not_a_table(origin, table, content))
        elif table not in tables():
            assembly.problems.append(unknown_table(origin, table))
        else:
            for key, value in content.items():
                origin = Origin("file", file.name, file.line(table, key))
                if setting := settings().get((table, key)):
                    assembly.put(setting, value, origin)
                else:
                    assembly.problems.append(unknown_key(origin, table, key, value))


def _not_a_table(origin: Origin, table: str, content: Any) -> str:
    if isinstance(content, list) and content and isinstance(content[0], dict):
        return f"{origin.place}: [[{table}]] is a list of tables; write [{table}], once"
    return outside_table(origin, table, content)
