"""`Config()` is whole by itself, immutable, and cheap to import."""

import subprocess
import sys

import msgspec
import pytest

from amqpd.config import Config, Listen
from amqpd.config.schema import settings
from amqpd.config.values import checked


def test_a_configuration_without_arguments_has_every_default():
    config = Config()
    assert config.listen.port == 5672
    assert config.connection.heartbeat_s == 60
    assert config.message.size_bytes_max == 16_777_216
    assert config.user.name in config.user.loopback_users


def test_a_configuration_cannot_be_changed():
    with pytest.raises(AttributeError):
        Config().listen.port = 1  # type: ignore[misc]


def test_an_unknown_table_or_key_is_refused_by_the_types_themselves():
    with pytest.raises(TypeError):
        Listen(prot=1)  # type: ignore[call-arg]
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"listen": {"prot": 1}}, Config)


def test_every_default_is_within_its_own_limits():
    for setting in settings().values():
        assert checked(setting, setting.default) == setting.default


@pytest.mark.slow
def test_importing_the_settings_loads_neither_command_line_nor_event_loop():
    """Runs another interpreter, as only a fresh one tells what an import loads."""
    script = "import sys, amqpd.config; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"click", "rich", "trio", "asyncio", "tomli"} & set(loaded)
