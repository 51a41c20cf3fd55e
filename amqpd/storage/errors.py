"""What is told when durable things cannot be kept or read."""


class StorageError(Exception):
    """The store cannot be used. The text is for a person: what, where, and what to do about it."""


class StoreFull(StorageError):
    """There is no room to write. Nothing was written; the same can be tried again."""
