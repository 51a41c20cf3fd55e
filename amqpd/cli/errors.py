"""How the commands tell of a configuration that cannot be used: on stderr, with exit status 2."""

from collections.abc import Iterator
from contextlib import contextmanager

import click

from amqpd.config import Config
from amqpd.config.problems import ConfigError

BAD_CONFIGURATION = 2


@contextmanager
def told_configuration_errors() -> Iterator[None]:
    """Turn a ConfigError of the body into one line a problem and exit status 2."""
    try:
        yield
    except ConfigError as error:
        for problem in error.problems:
            click.echo(f"amqpd: {problem}", err=True)
        raise click.exceptions.Exit(BAD_CONFIGURATION) from error


def check_policies(config: Config) -> None:
    """Raises ConfigError for policies that cannot be."""
    from amqpd.broker.policies import problems  # after what can fail without it, which is quick

    if found := problems(config):
        raise ConfigError(found)
