"""The questions in docs/DATA_FILE.md, asked as they stand there of the file of a running amqpd.

    python -m pytest interop/documents

The answers must be those of the document, but for moments and ages.
"""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pika
import pytest

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs/DATA_FILE.md").read_text()
FILE = "~/.local/state/amqpd/amqpd.db"
WITHIN_S = 30

# The interop rooms share how an amqpd is started; neither is a package that one installs.
sys.path.append(str(ROOT / "interop/clients"))
from launch import Amqpd  # noqa: E402

QUESTIONS = re.findall(
    r"^```sh\n(sqlite-utils .*?)^```\n+```\n(.*?)^```$", DOCUMENT, re.DOTALL | re.MULTILINE
)
TOOL = f"{sys.executable} -m sqlite_utils"
CUSTOMERS = ("smith", "müller", "rossi", "dupont")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The file of an amqpd that runs, with the orders of a small shop."""
    directory = tmp_path_factory.mktemp("amqpd")
    broker = Amqpd(directory)
    try:
        with pika.BlockingConnection(pika.URLParameters(broker.uri)) as connection:
            sell(connection.channel())
        yield directory / "amqpd.db"
    finally:
        assert broker.stop() == 0


def sell(channel: pika.adapters.blocking_connection.BlockingChannel) -> None:
    """Publishes 20 orders; mails of some come back from a consumer, one of them twice."""
    channel.confirm_delivery()
    channel.exchange_declare("shop", "topic", durable=True)
    for queue, key in (("orders", "order.#"), ("mails", "order.paid")):
        channel.queue_declare(queue, durable=True)
        channel.queue_bind(queue, "shop", key)
    persistent = pika.BasicProperties(delivery_mode=2, content_type="application/json")
    for number in range(20):
        order = {"order": 1000 + number, "customer": CUSTOMERS[number % len(CUSTOMERS)]}
        body = json.dumps(order, ensure_ascii=False).encode()
        key = "order.paid" if number % 4 == 0 else "order.new"
        channel.basic_publish("shop", key, body, persistent)
        if number in (17, 18):
            # What comes back is in the file when the next publish is confirmed.
            tags = [channel.basic_get("mails")[0].delivery_tag for _ in range(19 - number)]
            for tag in tags:
                channel.basic_nack(tag)


def without_moments(answer: str) -> list[str]:
    """The lines of an answer with nothing in them that depends on when it was given."""
    timeless = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}", "<moment>", answer)
    timeless = re.sub(r"\d+\.\d+", "<age>", timeless)
    return [re.sub(r"  +|-{3,}", "  ", line).strip() for line in timeless.splitlines()]


def test_the_document_asks_questions() -> None:
    assert len(QUESTIONS) >= 5


@pytest.mark.parametrize(("question", "answer"), QUESTIONS)
def test_a_question_is_answered_as_the_document_says(
    file: Path, question: str, answer: str
) -> None:
    assert FILE in question
    done = subprocess.run(
        ["bash", "-c", question.replace(FILE, str(file)).replace("sqlite-utils", TOOL)],
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert without_moments(done.stdout) == without_moments(answer)
