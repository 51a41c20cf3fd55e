"""The broker under test, names that are cleaned up, and a time limit for every test."""

import os
import secrets
import shutil
import signal
from collections.abc import Callable, Iterator

import pika
import pytest
from launch import Amqpd
from proxy import Proxy, proxied

SECONDS_PER_TEST = 30.0


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "seconds(n): a time limit of its own for this test")


@pytest.fixture(autouse=True)
def time_limit(request: pytest.FixtureRequest) -> Iterator[None]:
    """A broker that does not answer fails the test instead of hanging the suite."""
    marker = request.node.get_closest_marker("seconds")
    seconds = marker.args[0] if marker else SECONDS_PER_TEST

    def too_late(*_: object) -> None:
        raise TimeoutError(f"the test took more than {seconds} s")

    signal.signal(signal.SIGALRM, too_late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)


@pytest.fixture(scope="session")
def uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """AMQP_URI, always with its vhost; without it an amqpd of our own."""
    given = os.environ.get("AMQP_URI")
    if given:
        scheme, _, rest = given.partition("://")
        netloc, _, vhost = rest.partition("/")
        yield f"{scheme}://{netloc}/{vhost or '%2F'}"
        return
    broker = Amqpd(tmp_path_factory.mktemp("amqpd"))
    yield broker.uri
    status = broker.stop()
    assert not broker.bugs, "\n".join(broker.log)
    assert status == 0, f"amqpd ended with {status}"


@pytest.fixture
def name(uri: str) -> Iterator[Callable[[str], str]]:
    """name("work") is a queue or exchange name of this test alone, deleted when it ends."""
    prefix, taken = f"interop.{secrets.token_hex(4)}.", set()

    def full_name(short: str) -> str:
        taken.add(prefix + short)
        return prefix + short

    yield full_name
    with pika.BlockingConnection(pika.URLParameters(uri)) as connection:
        channel = connection.channel()
        for each in sorted(taken):
            channel.queue_delete(each)
            channel.exchange_delete(each)


@pytest.fixture
def proxy(uri: str) -> Iterator[Proxy]:
    with proxied(uri) as running:
        yield running


@pytest.fixture
def second_proxy(uri: str) -> Iterator[Proxy]:
    with proxied(uri) as running:
        yield running


def need(program: str, package: str) -> str:
    """The path of `program`; without it the test is skipped, or fails where CI is set."""
    path = shutil.which(program)
    if path:
        return path
    missing = f"{program} is not installed (package {package})"
    if os.environ.get("CI"):
        pytest.fail(missing)
    pytest.skip(missing)
