"""The two ways in which AMQP 0-9-1 refuses: a channel exception and a connection exception.

They are raised anywhere in `broker/` and `session/methods/`, and caught in one place of each way in
(`session/connection.py` turns them into channel.close or connection.close). Every constructor here
takes the explanation; the reply text that the client reads is `NAME - explanation`.

Source: AMQP 0-9-1 section 1.2 (reply codes); texts as RabbitMQ words them.
"""

REPLY_TEXT_BYTES_MAX = 255  # reply-text is a short string


class AmqpError(Exception):
    """A refusal with an AMQP reply code.

    Attributes:
        code: AMQP reply code, 300..541.
        text: the whole reply text, `NAME - explanation`, at most 255 bytes of UTF-8.
        method: (class id, method id) of the offending method, where it is not the one at hand.
    """

    def __init__(self, code: int, name: str, explanation: str) -> None:
        self.code = code
        self.text = cut_to_short_string(f"{name} - {explanation}")
        self.method: tuple[int, int] | None = None
        super().__init__(f"{code} {self.text}")


class ChannelException(AmqpError):
    """Closes the channel, leaves the connection (AMQP: a soft error)."""


class ConnectionException(AmqpError):
    """Closes the connection (AMQP: a hard error)."""


def cut_to_short_string(text: str) -> str:
    """At most 255 bytes of UTF-8; what is too long ends in dots, never within a character."""
    data = text.encode("utf-8", "replace")
    if len(data) <= REPLY_TEXT_BYTES_MAX:
        return text
    return data[: REPLY_TEXT_BYTES_MAX - 3].decode("utf-8", "ignore") + "..."


def access_refused(explanation: str) -> ChannelException:
    """403, closes the channel."""
    return ChannelException(403, "ACCESS_REFUSED", explanation)


def not_found(explanation: str) -> ChannelException:
    """404, closes the channel."""
    return ChannelException(404, "NOT_FOUND", explanation)


def resource_locked(explanation: str) -> ChannelException:
    """405, closes the channel."""
    return ChannelException(405, "RESOURCE_LOCKED", explanation)


def precondition_failed(explanation: str) -> ChannelException:
    """406, closes the channel."""
    return ChannelException(406, "PRECONDITION_FAILED", explanation)


def connection_forced(explanation: str) -> ConnectionException:
    """320: the broker wants the client to go."""
    return ConnectionException(320, "CONNECTION_FORCED", explanation)


def login_refused(explanation: str) -> ConnectionException:
    """403, closes the connection."""
    return ConnectionException(403, "ACCESS_REFUSED", explanation)


def frame_error(explanation: str) -> ConnectionException:
    """501: the bytes are not AMQP frames."""
    return ConnectionException(501, "FRAME_ERROR", explanation)


def syntax_error(explanation: str) -> ConnectionException:
    """502: a field has an impossible value."""
    return ConnectionException(502, "SYNTAX_ERROR", explanation)


def command_invalid(explanation: str) -> ConnectionException:
    """503: the method cannot be used."""
    return ConnectionException(503, "COMMAND_INVALID", explanation)


def channel_error(explanation: str) -> ConnectionException:
    """504: the method does not belong here."""
    return ConnectionException(504, "CHANNEL_ERROR", explanation)


def unexpected_frame(explanation: str) -> ConnectionException:
    """505: another frame must come."""
    return ConnectionException(505, "UNEXPECTED_FRAME", explanation)


def not_allowed(explanation: str) -> ConnectionException:
    """530: settings or permissions forbid it."""
    return ConnectionException(530, "NOT_ALLOWED", explanation)


def not_implemented(explanation: str) -> ConnectionException:
    """540: the broker does not do that."""
    return ConnectionException(540, "NOT_IMPLEMENTED", explanation)


def internal_error(explanation: str) -> ConnectionException:
    """541: the broker failed."""
    return ConnectionException(541, "INTERNAL_ERROR", explanation)
