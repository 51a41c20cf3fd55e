"""From what somebody wrote to the value of a setting: reading text by type, and checking."""

import re
from typing import Any, Final

import msgspec
import tomli

from amqpd.config.addresses import parse_address
from amqpd.config.schema import Setting

TRUTHS: Final = {
    "true": True, "yes": True, "on": True, "1": True,
    "false": False, "no": False, "off": False, "0": False,
}  # fmt: skip
TOML_LIST: Final = re.compile(r"""\s*\[\s*(["'\]])""")


class BadValue(Exception):
    """The value is of the wrong type or impossible. The text says why if it is not plain."""


def from_text(setting: Setting, text: str) -> Any:
    """Read a variable's or flag's text as the setting's type; BadValue if it is not of that form.

    A list is separated by commas, or written as TOML: `a,b` or `["a", "b"]`.
    """
    if not text.isprintable() and any("\ud800" <= character <= "\udfff" for character in text):
        raise BadValue("not UTF-8")
    if setting.is_list:
        return _list(text)
    stripped = text.strip()
    if setting.plain is bool and stripped.lower() in TRUTHS:
        return TRUTHS[stripped.lower()]
    if setting.plain in (int, float):
        try:
            return setting.plain(stripped)
        except ValueError:
            raise BadValue from None
    return text


def checked(setting: Setting, value: Any) -> Any:
    """The value, converted to the setting's type and within its limits; otherwise BadValue."""
    if setting.is_list and isinstance(value, str):
        value = [value]
    try:
        converted = msgspec.convert(value, setting.annotated)
    except msgspec.ValidationError:
        raise BadValue from None
    try:
        if setting.form == "address":
            for entry in converted:
                parse_address(entry, 0)
        elif setting.form == "regex":
            re.compile(converted)
    except (ValueError, re.error) as error:
        raise BadValue(str(error)) from None
    return converted


def _list(text: str) -> list[Any]:
    # `[::1]:5672` begins like a list: only a quote or the end after the bracket makes it one.
    if TOML_LIST.match(text):
        try:
            parsed = tomli.loads(f"value = {text}")["value"]
        except tomli.TOMLDecodeError as error:
            raise BadValue("not a TOML list") from error
        return list(parsed)
    return [entry.strip() for entry in text.split(",") if entry.strip()]
