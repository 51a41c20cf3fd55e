"""Numbers and fixed byte strings of AMQP 0-9-1 (sections 2.3 and 4.2)."""

PROTOCOL_HEADER = b"AMQP\x00\x00\x09\x01"
PROTOCOL_HEADER_0_9 = b"AMQP\x01\x01\x00\x09"
# What RabbitMQ 4 answers to a header that it does not know: "I would speak AMQP 1.0 with SASL".
PROTOCOL_HEADER_AMQP_1_SASL = b"AMQP\x03\x01\x00\x00"

FRAME_METHOD = 1
FRAME_HEADER = 2
FRAME_BODY = 3
FRAME_HEARTBEAT = 8
# The shortest payload of each frame type: class and method; class, weight, body size, flags.
PAYLOAD_BYTES_MIN = {FRAME_METHOD: 4, FRAME_HEADER: 14, FRAME_BODY: 0, FRAME_HEARTBEAT: 0}

FRAME_END = 0xCE
FRAME_END_BYTE = b"\xce"
FRAME_PREFIX_BYTES = 7  # type, channel, payload size
FRAME_OVERHEAD_BYTES = 8  # prefix and end octet
HEARTBEAT = b"\x08\x00\x00\x00\x00\x00\x00\xce"

CLASS_BASIC = 60
