"""`amqpd bench`: a load generator for any AMQP 0-9-1 broker.

Importing this package costs nothing but click: what generates load is imported when it runs.
"""

from amqpd.cli.bench.command import bench

__all__ = ["bench"]
