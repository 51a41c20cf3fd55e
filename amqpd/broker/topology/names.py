"""Names as RabbitMQ takes them."""


def cleaned(name: str) -> str:
    """The name without carriage returns and line feeds, which RabbitMQ drops silently."""
    return name.replace("\r", "").replace("\n", "")
