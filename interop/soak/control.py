"""The healthy client: it publishes, is confirmed and consumes all along, and notes how long."""

import multiprocessing
import time
from multiprocessing.connection import Connection as Pipe

import pika

PAUSE_S = 0.01
HEARTBEAT_S = 5
TRIP_S_MAX = 20.0
CONSUMING = "consuming"


def round_trips(uri: str, pipe: Pipe) -> list[float]:
    """Publish-to-delivery times in seconds, from sending CONSUMING until something arrives."""
    parameters = pika.URLParameters(uri)
    parameters.heartbeat = HEARTBEAT_S
    seconds: list[float] = []
    with pika.BlockingConnection(parameters) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        queue = channel.queue_declare("", exclusive=True).method.queue
        arrived: list[bytes] = []

        def keep(channel, method, properties, body):
            arrived.append(body)
            channel.basic_ack(method.delivery_tag)

        channel.basic_qos(prefetch_count=10)
        channel.basic_consume(queue, keep)
        pipe.send(CONSUMING)
        while not pipe.poll():
            begun = time.monotonic()
            body = b"trip %d" % len(seconds)
            channel.basic_publish("", queue, body, mandatory=True)
            while body not in arrived:
                connection.process_data_events(time_limit=0.1)
                if time.monotonic() > begun + TRIP_S_MAX:
                    raise TimeoutError(f"message {len(seconds)} has not come back")
            arrived.clear()
            seconds.append(time.monotonic() - begun)
            connection.process_data_events(time_limit=PAUSE_S)
    return seconds


def _run(uri: str, pipe: Pipe) -> None:
    try:
        pipe.send(round_trips(uri, pipe))
    except Exception as error:
        pipe.send(repr(error))


class Control:
    """Runs round_trips in a process of its own, so that the soak's own work does not slow it.

    RuntimeError with what went wrong, if anything: at once, or when it is asked to finish.
    """

    def __init__(self, uri: str) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_run, args=(uri, theirs), daemon=True)
        self._process.start()
        if (answer := self._answer()) != CONSUMING:
            raise RuntimeError(answer)

    def finish(self) -> list[float]:
        """Stops it and returns the round trips in seconds."""
        if not self._pipe.poll():  # else it has ended before its time, and says why
            self._pipe.send("stop")
        result = self._answer()
        self._process.join(10)
        if isinstance(result, str):
            raise RuntimeError(result)
        return result

    def _answer(self) -> list[float] | str:
        return self._pipe.recv() if self._pipe.poll(TRIP_S_MAX + 10) else "no answer"
