"""librabbitmq through its command line tools (Debian's amqp-tools)."""

import subprocess
from collections.abc import Callable

import pytest
from conftest import need
from messages import LARGE
from proxy import Proxy
from waiting import wait_until

Name = Callable[[str], str]
TIMEOUT_S = 20


@pytest.fixture
def tool(uri: str) -> Callable[..., bytes]:
    """tool("get", "-q", name) runs amqp-get and returns its standard output."""

    def run(command: str, *options: str, given: bytes = b"", status: int = 0) -> bytes:
        done = subprocess.run(
            [need(f"amqp-{command}", "amqp-tools"), "--url", uri, *options],
            input=given,
            capture_output=True,
            timeout=TIMEOUT_S,
        )
        assert done.returncode == status, done.stderr.decode()
        return done.stdout + done.stderr if status else done.stdout

    return run


def start_consumer(uri: str, *options: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [need("amqp-consume", "amqp-tools"), "--url", uri, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_declare_publish_get_delete(tool: Callable[..., bytes], name: Name) -> None:
    queue = name("tools")
    assert tool("declare-queue", "-d", "-q", queue).decode().strip() == queue
    tool("publish", "-r", queue, "-p", "-b", "hello", "-C", "text/plain", "-H", "answer: 42")
    tool("publish", "-r", queue, given=b"")
    assert tool("get", "-q", queue) == b"hello"
    assert tool("get", "-q", queue) == b""
    tool("get", "-q", queue, status=2)  # 2: the queue is empty
    tool("publish", "-r", queue, "-b", "left over")
    assert b"not empty" in tool("delete-queue", "-e", "-q", queue, status=1)
    assert tool("delete-queue", "-q", queue).strip() == b"1"


def test_a_server_named_queue(tool: Callable[..., bytes], name: Name) -> None:
    queue = tool("declare-queue", "-q", "").decode().strip()
    assert queue.startswith("amq.gen-")
    tool("delete-queue", "--if-unused", "-q", queue)


@pytest.mark.parametrize("options", [(), ("-A",), ("-p", "2")], ids=["acks", "no acks", "prefetch"])
def test_consuming_lines_published_as_messages(
    tool: Callable[..., bytes], uri: str, name: Name, options: tuple[str, ...]
) -> None:
    queue = name("lines")
    tool("declare-queue", "-q", queue)
    lines = b"".join(b"line %d\n" % i for i in range(50))
    tool("publish", "-l", "-r", queue, given=lines)
    assert tool("consume", "-q", queue, "-c", "50", *options, "cat") == lines
    if not options:
        tool("get", "-q", queue, status=2)  # everything was acked


def test_large_bodies(tool: Callable[..., bytes], name: Name) -> None:
    queue = name("large")
    tool("declare-queue", "-q", queue)
    tool("publish", "-r", queue, given=LARGE)
    assert tool("get", "-q", queue) == LARGE


def test_pub_sub_through_a_topic_exchange(tool: Callable[..., bytes], uri: str) -> None:
    consumers = [
        start_consumer(uri, "-q", "", "-e", "amq.topic", "-r", key, "-c", "1", "cat")
        for key in ("tools.*", "tools.#")
    ]

    def all_have_received() -> bool:
        # Nobody tells when a consumer has bound its queue: publish until each has had one.
        tool("publish", "-e", "amq.topic", "-r", "tools.news", "-b", "extra")
        return all(consumer.poll() is not None for consumer in consumers)

    wait_until(all_have_received, "both consumers received a message")
    assert [consumer.communicate() for consumer in consumers] == [(b"extra", b"")] * 2


def test_a_message_of_a_killed_consumer_goes_to_the_next(
    tool: Callable[..., bytes], uri: str, name: Name
) -> None:
    queue = name("killed")
    tool("declare-queue", "-q", queue)
    tool("publish", "-r", queue, "-b", "precious")
    # The command runs before the ack: it kills the amqp-consume that started it.
    consumer = start_consumer(uri, "-q", queue, "--", "sh", "-c", "cat; kill -9 $PPID")
    assert consumer.communicate(timeout=TIMEOUT_S)[0] == b"precious"
    assert consumer.returncode == -9
    assert tool("consume", "-q", queue, "-c", "1", "cat") == b"precious"


def test_heartbeats_and_their_absence(tool: Callable[..., bytes], name: Name, proxy: Proxy) -> None:
    queue = name("heartbeats")
    tool("declare-queue", "-q", queue)
    consumer = start_consumer(proxy.uri, "--heartbeat=1", "-q", queue, "-c", "2", "cat")
    wait_until(lambda: min(proxy.heartbeats.values()) >= 3, "three heartbeats each way")
    tool("publish", "-r", queue, "-b", "still there")
    assert consumer.stdout is not None
    assert consumer.stdout.read(11) == b"still there"
    proxy.freeze_client()
    wait_until(lambda: proxy.dropped_by_broker, "the broker ends the connection")
    assert b"connection closed" in consumer.communicate(timeout=TIMEOUT_S)[1]
    assert consumer.returncode == 1


def test_errors_are_printed_with_their_code(tool: Callable[..., bytes], name: Name) -> None:
    missing = name("missing")
    printed = tool("consume", "-q", missing, "cat", status=1)
    assert b"404" in printed
    assert f"NOT_FOUND - no queue '{missing}' in vhost '/'".encode() in printed
    tool("declare-queue", "-q", missing)
    printed = tool("declare-queue", "-d", "-q", missing, status=1)
    assert b"inequivalent arg 'durable'" in printed
