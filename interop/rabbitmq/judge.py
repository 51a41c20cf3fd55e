"""Plays the conversations of tests/conversations against a real RabbitMQ and prints differences.

    python interop/rabbitmq/judge.py [--uri amqp://guest:guest@127.0.0.1:5672/] [FILE ...]

Exit status: 0 when RabbitMQ answers what the files say, or what they name as a known difference;
1 otherwise. The broker must have the user guest with password guest; queues and exchanges that the
conversations declare are deleted before and after each.
"""

import argparse
import re
import select
import shlex
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from amqpd.testing.conversation import Conversation, load, parse
from amqpd.testing.conversation_play import MismatchError, Outcome, Peer, play

CONVERSATIONS = Path(__file__).resolve().parents[2] / "tests" / "conversations"


class SocketPeer:
    """A client connection over TCP."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._socket = socket.create_connection(address, timeout=10)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.closed = False

    def send(self, data: bytes) -> None:
        try:
            self._socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            # What the broker said before it closed is still there to be received.
            return

    def receive(self, patience_s: float) -> bytes:
        readable, _, _ = select.select([self._socket], [], [], patience_s)
        if not readable or self.closed:
            return b""
        try:
            data = self._socket.recv(1 << 18)
        except ConnectionResetError:
            data = b""
        self.closed = not data
        return data

    def close(self) -> None:
        self._socket.close()


class RabbitStage:
    """RabbitMQ behind a socket, in real time."""

    is_judge = True
    reply_s = 3.0

    def __init__(self, address: tuple[str, int], quiet_s: float, ctl: list[str]) -> None:
        self._address = address
        self._ctl = ctl
        self.quiet_s = quiet_s

    def connect(self) -> Peer:
        return SocketPeer(self._address)

    def wait(self, seconds: float) -> None:
        time.sleep(seconds)

    def stop(self) -> None:
        raise NotImplementedError("conversations in which the broker stops are for the core only")

    def permit(self, permissions: Mapping[str, str]) -> None:
        """Lets guest do only this; everything where nothing is said."""
        patterns = [permissions.get(name, ".*") for name in ("configure", "write", "read")]
        command = [*self._ctl, "-q", "set_permissions", "-p", "/", "guest", *patterns]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def names(conversation: Conversation, method: str, field: str) -> set[str]:
    """The names that a conversation declares with a method, where they are plain strings."""
    found = set()
    for step in conversation.steps:
        if step.what == method and field in step.arguments:
            name = step.arguments[field].value({})
            if isinstance(name, str) and name and not name.startswith("amq."):
                found.add(name)
    return found


def clean(conversation: Conversation, stage: RabbitStage, queues: set[str]) -> None:
    """Deletes what the conversation declares, over a connection of its own, unchecked.

    Each delete has a channel of its own: one that is refused does not stop the others.
    """
    queues = {name for name in queues | names(conversation, "queue.declare", "queue") if name}
    exchanges = names(conversation, "exchange.declare", "exchange")
    deletes = [("queue.delete", "queue", name) for name in sorted(queues)]
    deletes += [("exchange.delete", "exchange", name) for name in sorted(exchanges)]
    if deletes:
        play(_cleaning(deletes), stage)


def _cleaning(deletes: list[tuple[str, str, str]]) -> Conversation:
    lines = ["=== cleaning"]
    for channel, (method, field, name) in enumerate(deletes, 1):
        lines += [
            f"z opens {channel}",
            f"z> {channel} {method} {field}={name!r}",
            f"z< {channel} {method}-ok",
            f"z~ {channel} channel.close ; not ours to delete",
        ]
    return parse("\n".join(lines), "cleaning")[0]


def fill(path: Path, filled: dict[int, list[str]]) -> None:
    """Writes what RabbitMQ said over the `?` lines of a file."""
    lines = path.read_text(encoding="utf-8").splitlines()
    for number in sorted(filled, reverse=True):
        lines[number - 1 : number] = [re.sub(r" +$", "", line) for line in filled[number]]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def judge(path: Path, stage: RabbitStage, options: argparse.Namespace, seen: Counter[str]) -> None:
    """Plays the conversations of one file and counts what came of them in `seen`."""
    filled: dict[int, list[str]] = {}
    for conversation in load(path):
        if options.only and options.only not in conversation.title:
            continue
        if conversation.only:
            seen[f"only {conversation.only}"] += 1
        elif conversation.permissions and not options.ctl:
            seen["without --ctl not played"] += 1
        else:
            trial(conversation, stage, options, seen, filled)
    if filled and options.fill:
        fill(path, filled)


def trial(
    conversation: Conversation,
    stage: RabbitStage,
    options: argparse.Namespace,
    seen: Counter[str],
    filled: dict[int, list[str]],
) -> None:
    """Plays one conversation on a broker without its queues and exchanges, and leaves none."""
    outcome = Outcome()
    clean(conversation, stage, set())
    if conversation.permissions:
        stage.permit(conversation.permissions)
    try:
        outcome = play(conversation, stage, print if options.trace else lambda line: None)
    except MismatchError as error:
        seen["different"] += 1
        print(f"{error}\n")
    else:
        seen["known difference" if outcome.known else "same"] += 1
    finally:
        if conversation.permissions:
            stage.permit({})
    if options.known:
        for step in outcome.known:
            print(f"{conversation.file}, line {step.number}: {step.text}")
    filled |= outcome.filled
    clean(conversation, stage, outcome.queues)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("files", nargs="*", type=Path, help="conversation files; default: all")
    parser.add_argument("--uri", default="amqp://guest:guest@127.0.0.1:5672/")
    parser.add_argument("--ctl", default="", help="rabbitmqctl as it reaches the broker")
    parser.add_argument("--only", help="only conversations whose title contains this")
    parser.add_argument("--quiet", type=float, default=0.06, help="seconds that count as silence")
    parser.add_argument("--known", action="store_true", help="print known differences too")
    parser.add_argument("--trace", action="store_true", help="print every line as it is played")
    parser.add_argument("--fill", action="store_true", help="replace `?` by what RabbitMQ says")
    options = parser.parse_args()
    uri = urlsplit(options.uri)
    address = uri.hostname or "127.0.0.1", uri.port or 5672
    stage = RabbitStage(address, options.quiet, shlex.split(options.ctl))
    seen: Counter[str] = Counter()
    for path in options.files or sorted(CONVERSATIONS.glob("*.conv")):
        judge(path, stage, options, seen)
    print(", ".join(f"{count} {what}" for what, count in sorted(seen.items())) or "nothing played")
    return 1 if seen["different"] else 0


if __name__ == "__main__":
    sys.exit(main())
