"""Events for the log: what any room may say; how it is written is `server/logs.py`'s business.

    log = EventLog("connection")
    log.warning("handshake timed out", peer="127.0.0.1:50112", after_s=10)

An event is a constant text that can be searched for; whatever varies is a field. What clients sent
may stand in fields only: it is quoted there, so that it cannot forge a line or colour a terminal.
"""

import logging
from typing import Any, Final

ROOT: Final = "amqpd"
FIELDS: Final = "amqpd_fields"


class EventLog:
    """Logs events of one area of the broker; `EventLog("connection")` is the logger of that name.

    Each method takes the event and its fields, and costs next to nothing below the level in force.
    """

    __slots__ = ("_logger",)

    def __init__(self, area: str) -> None:
        self._logger = logging.getLogger(f"{ROOT}.{area}")

    def debug(self, event: str, /, **fields: Any) -> None:
        """What a developer of the broker wants to see."""
        self._log(logging.DEBUG, event, fields)

    def info(self, event: str, /, **fields: Any) -> None:
        """What happens in the course of things."""
        self._log(logging.INFO, event, fields)

    def warning(self, event: str, /, **fields: Any) -> None:
        """What somebody should look at: a client did wrong, a limit was met."""
        self._log(logging.WARNING, event, fields)

    def error(self, event: str, /, **fields: Any) -> None:
        """What failed in the broker itself."""
        self._log(logging.ERROR, event, fields)

    def exception(self, event: str, error: BaseException, /, **fields: Any) -> None:
        """A bug, or a failure nobody foresaw: an error with its traceback."""
        if self._logger.isEnabledFor(logging.ERROR):
            information = (type(error), error, error.__traceback__)
            self._logger.error(event, extra={FIELDS: fields}, exc_info=information)

    def enabled(self, level: int) -> bool:
        """Whether records of a level of `logging` are written; ask before costly fields."""
        return self._logger.isEnabledFor(level)

    def _log(self, level: int, event: str, fields: dict[str, Any]) -> None:
        if self._logger.isEnabledFor(level):
            self._logger.log(level, event, extra={FIELDS: fields})
