"""pika's connections with a bound on every wait, and what a client suffers from a lost broker."""

import pika
from pika.exceptions import AMQPConnectionError

HEARTBEAT_S = 10  # a broker that does not answer is given up after two or three of these
CONNECT_S = 10.0

# pika tells of a lost connection in its own way.
GONE = (ConnectionError, AMQPConnectionError)


def pika_connection(uri: str) -> pika.BlockingConnection:
    """A connection that does not wait for ever."""
    parameters = pika.URLParameters(uri)
    parameters.heartbeat = HEARTBEAT_S
    parameters.socket_timeout = parameters.stack_timeout = CONNECT_S
    parameters.blocked_connection_timeout = CONNECT_S
    return pika.BlockingConnection(parameters)
