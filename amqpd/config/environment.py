"""The environment's part of the configuration: `AMQPD_TABLE__KEY` and three of RabbitMQ's names."""

import re
from collections.abc import Iterator, Mapping
from typing import Final

from amqpd.config.problems import unknown_variable
from amqpd.config.schema import Key, settings

PREFIX: Final = "AMQPD_"
FILE_VARIABLE: Final = "AMQPD_CONFIG"

RABBITMQ_VARIABLES: Final[Mapping[str, Key]] = {
    "RABBITMQ_DEFAULT_USER": ("user", "name"),
    "RABBITMQ_DEFAULT_PASS": ("user", "password"),
    "RABBITMQ_DEFAULT_VHOST": ("vhost", "default"),
}

# Kubernetes tells every container where a service called `amqpd` or `amqpd-...` is, by variables
# that begin like ours. They are not meant for the broker, and nobody can take them away.
SERVICE_LINK: Final = re.compile(
    r"AMQPD_(?:\w+_)?(?:SERVICE_HOST|SERVICE_PORT(?:_\w+)?|PORT_\d+_(?:TCP|UDP|SCTP)(?:_\w+)?)"
)
SERVICE_URL: Final = re.compile(r"(?:tcp|udp|sctp)://")


def variables() -> Mapping[str, Key]:
    """Every variable that sets something: the ones of RabbitMQ first, as ours beat them."""
    return {**RABBITMQ_VARIABLES, **{one.variable: key for key, one in settings().items()}}


def given(environ: Mapping[str, str]) -> Iterator[tuple[str, Key, str]]:
    """(variable, setting, text) of each variable that sets something, the weaker ones first.

    An empty variable of RabbitMQ's counts as not given, as it does there.
    """
    for name, key in variables().items():
        if name in environ and not (name in RABBITMQ_VARIABLES and not environ[name]):
            yield name, key, environ[name]


def unknown(environ: Mapping[str, str]) -> Iterator[str]:
    """A problem for each variable that begins with AMQPD_ and sets nothing."""
    known = [*(name for name in variables() if name.startswith(PREFIX)), FILE_VARIABLE]
    for name, text in sorted(environ.items()):
        if name.startswith(PREFIX) and name not in known and not _is_service_link(name, text):
            yield unknown_variable(name, known)


def _is_service_link(name: str, text: str) -> bool:
    if "__" in name:
        return False
    if SERVICE_LINK.fullmatch(name):
        return True
    return name.endswith("_PORT") and SERVICE_URL.match(text) is not None
