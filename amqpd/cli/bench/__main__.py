"""`python -m amqpd.cli.bench`."""

from amqpd.cli.bench.command import bench

if __name__ == "__main__":
    bench(prog_name="amqpd bench")
