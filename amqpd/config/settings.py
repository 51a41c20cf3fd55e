"""Every setting: its table, name, type, limits, default and the sentence that explains it.

This is the only list. The loader, the error messages, `amqpd config show` and `conf/amqpd.toml`
are all made from it: a table's docstring and a setting's `description` are what users read, and
`extra` says what msgspec cannot check (`form`) and what must not be shown (`secret`).
Units stand last in a name (`heartbeat_s`, `size_bytes_max`).

`Config()` is a complete configuration with every default. Building a table directly
(`Listen(port=0)`) does not check its values; `amqpd.config.sources.load` does.
"""

from typing import Annotated, Any, Final, Literal

from msgspec import Meta, Struct, field

PREFETCH_MAX: Final = 65_535
CHANNELS_MAX: Final = 65_535
MIB: Final = 1024 * 1024

Name = Annotated[str, Meta(min_length=1, max_length=255)]


class Listen(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where clients connect."""

    bind: Annotated[
        tuple[str, ...],
        Meta(
            min_length=1,
            extra={"form": "address"},
            description='Addresses to listen on: "HOST", "HOST:PORT", "[IPv6]:PORT", "unix:PATH".',
        ),
    ] = ("127.0.0.1",)
    port: Annotated[
        int,
        Meta(
            ge=0,
            le=65_535,
            description="TCP port of every address in bind that names none; 0 takes any free port.",
        ),
    ] = 5672
    backlog: Annotated[
        int,
        Meta(ge=1, le=65_535, description="Connections that may wait to be accepted, per address."),
    ] = 1024


class Connection(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is offered to a client in connection.tune, and how long and how many may connect."""

    heartbeat_s: Annotated[
        int,
        Meta(
            ge=0,
            le=65_535,
            description="Heartbeat interval offered to clients, in seconds; 0 offers none.",
        ),
    ] = 60
    frame_bytes_max: Annotated[
        int,
        Meta(
            ge=8192,
            le=16 * MIB,
            description="Largest frame offered and accepted, in bytes. Messages may be larger.",
        ),
    ] = 131_072
    channels_max: Annotated[
        int,
        Meta(
            ge=0,
            le=CHANNELS_MAX,
            description="Most channels a connection may have open; 0 is no limit.",
        ),
    ] = 2047
    handshake_timeout_s: Annotated[
        float,
        Meta(
            gt=0,
            le=86_400,
            description="Seconds a client has from connecting to connection.open-ok.",
        ),
    ] = 10.0
    connections_max: Annotated[
        int,
        Meta(ge=0, description="Most connections at one time; 0 is no limit."),
    ] = 0


class User(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The user that exists from the start, and who may connect only from this machine."""

    name: Annotated[Name, Meta(description="Name to log in with.")] = "guest"
    password: Annotated[
        str,
        Meta(min_length=1, description="Password of that user.", extra={"secret": True}),
    ] = "guest"
    tags: Annotated[
        tuple[str, ...],
        Meta(description="Tags of that user, as in RabbitMQ: administrator, monitoring, ..."),
    ] = ("administrator",)
    configure: Annotated[
        str,
        Meta(
            extra={"form": "regex"},
            description="Regular expression of the names that the user may declare and delete.",
        ),
    ] = ".*"
    write: Annotated[
        str,
        Meta(
            extra={"form": "regex"},
            description="Regular expression of the names that the user may publish and bind to.",
        ),
    ] = ".*"
    read: Annotated[
        str,
        Meta(
            extra={"form": "regex"},
            description="Regular expression of the names that the user may consume and bind from.",
        ),
    ] = ".*"
    loopback_users: Annotated[
        tuple[str, ...],
        Meta(
            description="Users who may connect only from this machine; [] lets all from anywhere."
        ),
    ] = ("guest",)
    connections_max: Annotated[
        int,
        Meta(ge=0, description="Connections that the user may have at a time; 0 is no limit."),
    ] = 0
    channels_max: Annotated[
        int,
        Meta(
            ge=0, description="Channels that the user may have on all connections; 0 is no limit."
        ),
    ] = 0


class Vhost(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Virtual hosts."""

    default: Annotated[
        Name,
        Meta(description="The virtual host that exists from the start."),
    ] = "/"
    default_queue_type: Annotated[
        Literal["classic", "quorum", "stream"],
        Meta(description="Type of durable shared queues that are declared without x-queue-type."),
    ] = "classic"
    queues_max: Annotated[
        int,
        Meta(ge=0, description="Queues that the virtual host may have; 0 is no limit."),
    ] = 0
    connections_max: Annotated[
        int,
        Meta(ge=0, description="Connections to the virtual host at a time; 0 is no limit."),
    ] = 0


class Node(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the broker calls itself."""

    name: Annotated[
        Name,
        Meta(description="Node and cluster name shown to clients (cluster_name)."),
    ] = "amqpd@localhost"


class Message(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Limits on a message."""

    size_bytes_max: Annotated[
        int,
        Meta(
            ge=1,
            le=512 * MIB,
            description="Largest message body, in bytes; a larger one closes its channel with 406.",
        ),
    ] = 16 * MIB


class Consumer(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Limits on consumers."""

    prefetch_default: Annotated[
        int,
        Meta(
            ge=0,
            le=PREFETCH_MAX,
            description="Prefetch of a consumer whose channel never sent basic.qos; 0 is no limit.",
        ),
    ] = 0
    per_channel_max: Annotated[
        int,
        Meta(ge=0, description="Most consumers on one channel; 0 is no limit."),
    ] = 0
    ack_timeout_s: Annotated[
        float,
        Meta(
            ge=0,
            le=31_536_000,
            description="Seconds that a delivery may be unacknowledged; 0 is no limit. A queue's or"
            " a consumer's x-consumer-timeout (in milliseconds) counts instead.",
        ),
    ] = 1800.0
    ack_timeout_cancels: Annotated[
        bool,
        Meta(
            description="A consumer that is too late is cancelled, only on quorum queues, as in"
            " RabbitMQ 4.3; otherwise its channel is closed."
        ),
    ] = False


class Storage(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where durable things are kept."""

    data_dir: Annotated[
        str,
        Meta(
            description="Directory of the data; empty takes the platform's place for it:"
            " $XDG_STATE_HOME/amqpd, ~/.local/state/amqpd,"
            " on macOS ~/Library/Application Support/amqpd."
        ),
    ] = ""
    memory_only: Annotated[
        bool,
        Meta(description="Keep nothing on disk: all is gone when the broker stops. For tests."),
    ] = False
    sync: Annotated[
        Literal["full", "normal", "off"],
        Meta(
            description="What a confirm means: full, the disk has it, whatever happens; normal,"
            " it survives kill -9 but the last moments may be lost when the power fails;"
            " off, the same and the file itself may be damaged when the power fails."
        ),
    ] = "full"


class Alarms(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When publishers are told to wait (connection.blocked)."""

    memory_share_max: Annotated[
        float,
        Meta(
            gt=0,
            le=1,
            description="Share of the machine's (or the control group's) memory that the process"
            " may use before publishers are blocked.",
        ),
    ] = 0.6
    disk_free_bytes_min: Annotated[
        int,
        Meta(
            ge=0,
            description="Free bytes on the data directory's disk below which publishers are"
            " blocked; 0 never blocks them.",
        ),
    ] = 50_000_000


class Log(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is written to standard error."""

    level: Annotated[
        Literal["debug", "info", "warning", "error"],
        Meta(description="Least level that is written: debug, info, warning or error."),
    ] = "info"
    format: Annotated[
        Literal["text", "json"],
        Meta(description="text for people, json for one JSON object a line."),
    ] = "text"


class Compatibility(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Behaviour that newer RabbitMQ versions refuse. The defaults are those of RabbitMQ 4.2."""

    transient_nonexclusive_queues: Annotated[
        bool,
        Meta(description="Allow queues that are neither durable nor exclusive."),
    ] = True
    global_qos: Annotated[
        bool,
        Meta(description="Let basic.qos with global=true share one prefetch in the whole channel."),
    ] = True


class Events(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the broker tells of itself, as messages; docs/EVENTS.md."""

    exchange: Annotated[
        bool,
        Meta(description="Tell what happens through the exchange amq.rabbitmq.event."),
    ] = False
    firehose: Annotated[
        bool,
        Meta(
            description="Copy every message that is published or delivered to amq.rabbitmq.trace."
        ),
    ] = False


class Limits(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bounds on what connections and queues may hold in memory."""

    output_bytes_high: Annotated[
        int,
        Meta(
            ge=65_536,
            description="Bytes waiting to be sent to a client that pause deliveries to it.",
        ),
    ] = MIB
    transaction_bytes_max: Annotated[
        int,
        Meta(
            ge=65_536,
            description="Bytes of messages in one open transaction; more closes its channel (406).",
        ),
    ] = 128 * MIB
    envelopes_max: Annotated[
        int,
        Meta(
            ge=1,
            description="Most routes (exchange, routing key, flags) remembered per connection.",
        ),
    ] = 1024
    queues_max: Annotated[
        int,
        Meta(ge=0, description="Queues that the broker may have; 0 is no limit."),
    ] = 0
    exchanges_max: Annotated[
        int,
        Meta(ge=0, description="Exchanges that the broker may have; 0 is no limit."),
    ] = 0
    queue_memory_bytes_max: Annotated[
        int,
        Meta(
            ge=65_536,
            description="Bytes of messages that one queue keeps in memory, at its head;"
            " the rest waits in the file.",
        ),
    ] = 32 * MIB
    queues_memory_bytes_max: Annotated[
        int,
        Meta(
            ge=65_536,
            description="Bytes of messages that all queues together keep in memory.",
        ),
    ] = 256 * MIB
    uncommitted_bytes_max: Annotated[
        int,
        Meta(
            ge=65_536,
            description="Bytes of messages on their way to the disk;"
            " publishers are not read while there are more.",
        ),
    ] = 16 * MIB


class Policy(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What queues and exchanges get whose names match, as in RabbitMQ."""

    name: Name
    pattern: str
    apply_to: Literal[
        "all", "queues", "exchanges", "classic_queues", "quorum_queues", "streams"
    ] = "all"
    priority: int = 0
    definition: dict[str, Any]


class Config(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A complete configuration: one attribute a table, immutable, every default filled in."""

    listen: Listen = field(default_factory=Listen)
    connection: Connection = field(default_factory=Connection)
    user: User = field(default_factory=User)
    vhost: Vhost = field(default_factory=Vhost)
    node: Node = field(default_factory=Node)
    message: Message = field(default_factory=Message)
    consumer: Consumer = field(default_factory=Consumer)
    storage: Storage = field(default_factory=Storage)
    alarms: Alarms = field(default_factory=Alarms)
    log: Log = field(default_factory=Log)
    compatibility: Compatibility = field(default_factory=Compatibility)
    events: Events = field(default_factory=Events)
    limits: Limits = field(default_factory=Limits)
    policies: tuple[Policy, ...] = ()
    operator_policies: tuple[Policy, ...] = ()
