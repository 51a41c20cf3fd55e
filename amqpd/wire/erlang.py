"""Values as RabbitMQ prints them in reply texts: in Erlang's notation.

Clients and their tests read these texts, so the notation is part of what stock clients see.
"""


def binary(data: bytes) -> str:
    """A binary as Erlang's `~p` prints it: quoted when printable, else as a list of octets."""
    if data and all(32 <= octet < 127 or octet in (8, 9, 10, 11, 12, 13, 27) for octet in data):
        escaped = data.decode("ascii").replace("\\", "\\\\").replace('"', '\\"')
        for plain, code in (("\n", "\\n"), ("\r", "\\r"), ("\t", "\\t"), ("\x1b", "\\e")):
            escaped = escaped.replace(plain, code)
        return f'<<"{escaped}">>'
    return "<<" + ",".join(str(octet) for octet in data) + ">>"


def describe_payload(payload: bytes) -> str:
    """`all octets = …` or `first 16 octets = …` of a frame's payload."""
    which = "all" if len(payload) <= 16 else "first 16"
    return f"{which} octets = {binary(payload[:16])}"
