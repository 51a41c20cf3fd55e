"""`python -m amqpd` is `amqpd`."""

from amqpd.cli.main import main

# Worker processes import this module again under another name; they must not start a broker.
if __name__ == "__main__":
    main(prog_name="amqpd")
