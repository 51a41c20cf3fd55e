"""The settings as data: what tables and keys there are, of what type, and what a value may be."""

from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal, get_args, get_origin

import msgspec
from msgspec import Meta, Struct

from amqpd.config.addresses import FORMS
from amqpd.config.settings import Config

LISTS: Final = ("policies", "operator_policies")
"""What a file has any number of: `[[policies]]`."""

Key = tuple[str, str]
"""A table and a key in it: `("listen", "port")`."""


class Setting(Struct, frozen=True, kw_only=True):
    """One setting. `annotated` is its type with the limits, `plain` the same without."""

    table: str
    key: str
    annotated: Any
    plain: Any
    default: Any
    meta: Meta
    form: str
    secret: bool

    @property
    def is_list(self) -> bool:
        return get_origin(self.plain) is tuple

    @property
    def choices(self) -> tuple[str, ...]:
        return get_args(self.plain) if get_origin(self.plain) is Literal else ()

    @property
    def variable(self) -> str:
        """The environment variable that sets it: `AMQPD_LISTEN__PORT`."""
        return f"AMQPD_{self.table}__{self.key}".upper()


@cache
def settings() -> Mapping[Key, Setting]:
    """Every setting by table and key, in the order of `settings.py`."""
    found: dict[Key, Setting] = {}
    for table, struct in tables().items():
        for info in msgspec.structs.fields(struct):
            found[table, info.name] = _setting(table, info)
    return MappingProxyType(found)


@cache
def tables() -> Mapping[str, type[Struct]]:
    """Every table's struct by name, in the order of `settings.py`."""
    return MappingProxyType(
        {info.name: info.type for info in msgspec.structs.fields(Config) if info.name not in LISTS}
    )


def may_be(setting: Setting) -> str:
    """What a value of the setting may be, as a sentence ends: `a whole number from 0 to 9`."""
    if setting.form == "address":
        return f"one or more of {FORMS}"
    if setting.form == "regex":
        return "a regular expression"
    if setting.choices:
        return f"{', '.join(setting.choices[:-1])} or {setting.choices[-1]}"
    if setting.is_list:
        return "a list of texts"
    if setting.plain is bool:
        return "true or false"
    if setting.plain is str:
        return _text(setting.meta)
    return _number(setting.plain, setting.meta)


def _text(meta: Meta) -> str:
    if meta.max_length is not None:
        return f"a text of {meta.min_length or 0} to {meta.max_length} characters"
    return "a text that is not empty" if meta.min_length else "a text"


def _number(plain: type, meta: Meta) -> str:
    noun = "a whole number" if plain is int else "a number"
    low = f"above {meta.gt}" if meta.gt is not None else f"from {meta.ge}"
    return f"{noun} {low}" + ("" if meta.le is None else f" to {meta.le}")


def _setting(table: str, info: msgspec.structs.FieldInfo) -> Setting:
    if get_origin(info.type) is not Annotated:
        raise TypeError(f"{table}.{info.name} has no description")
    plain, *metas = get_args(info.type)
    # `Name` brings its own Meta with the lengths; the setting's follows with the description.
    merged = {
        name: value
        for meta in metas
        for name in ("gt", "ge", "le", "min_length", "max_length", "description", "extra")
        if (value := getattr(meta, name)) is not None
    }
    extra = merged.pop("extra", {})
    return Setting(
        table=table,
        key=info.name,
        annotated=info.type,
        plain=plain,
        default=info.default,
        meta=Meta(**merged),
        form=extra.get("form", ""),
        secret=extra.get("secret", False),
    )
