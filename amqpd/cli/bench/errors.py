"""The one error that ends a run."""


class BenchError(Exception):
    """A run that cannot start or go on; the text is one line for the person at the terminal."""
