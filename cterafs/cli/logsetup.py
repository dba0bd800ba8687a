"""Where log records go, and what they look like."""

from __future__ import annotations

import datetime
import json
import logging
import logging.handlers
import os
from io import TextIOWrapper
from pathlib import Path
from typing import cast

from cterafs.cli.failures import printable
from cterafs.config import LogConfig
from cterafs.errors import ConfigError

LOG_LIMIT = 8 << 20
"""Bytes of a log of our own: some 60,000 lines, and as many in the one before it."""


def configure(config: LogConfig, *, verbose: bool = False, bounded: bool = False) -> None:
    """Send our records to the file, or else to standard error. `verbose` lowers the level to debug.

    A `bounded` file is put aside when it grows long; any other is the administrator's, whose tools rotate it.

    Other libraries' records pass from WARNING on only: on lower levels HTTP libraries log headers and addresses,
    and so sessions and signatures.

    Raises:
        ConfigError: the file cannot be opened.
    """
    handler: logging.Handler
    try:
        if config.file is None:
            handler = logging.StreamHandler()
        else:
            handler = BoundedFileHandler(config.file) if bounded else PrivateFileHandler(config.file)
    except OSError as error:
        raise ConfigError(f"log.file: cannot open {config.file}: {error.strerror}") from None
    handler.setFormatter(JsonFormatter() if config.format == "json" else LineFormatter())
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
        old.close()
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logging.getLogger("cterafs").setLevel(logging.DEBUG if verbose else config.level.upper())
    logging.captureWarnings(True)


class PrivateFileHandler(logging.handlers.WatchedFileHandler):
    """Appends to a file that others cannot read, and follows it when it is rotated."""

    def __init__(self, file: Path) -> None:
        super().__init__(file, encoding="utf-8", errors="backslashreplace")

    def _open(self) -> TextIOWrapper:
        return _open_private(self)


class BoundedFileHandler(logging.handlers.RotatingFileHandler):
    """The same, for a file that nobody rotates: it is put aside at `LOG_LIMIT`, replacing the one put aside before."""

    def __init__(self, file: Path) -> None:
        super().__init__(file, maxBytes=LOG_LIMIT, backupCount=1, encoding="utf-8", errors="backslashreplace")

    def _open(self) -> TextIOWrapper:
        return _open_private(self)


def _open_private(handler: logging.FileHandler) -> TextIOWrapper:
    descriptor = os.open(handler.baseFilename, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    return cast("TextIOWrapper", os.fdopen(descriptor, handler.mode, encoding=handler.encoding, errors=handler.errors))


def _time(record: logging.LogRecord) -> str:
    return datetime.datetime.fromtimestamp(record.created, datetime.UTC).isoformat(timespec="milliseconds")


class LineFormatter(logging.Formatter):
    """A line per record, in UTC; control characters are escaped, so that no name can forge a record."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802 (the name is logging's)
        return _time(record)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (the name is logging's)
        return printable(super().formatMessage(record))


class JsonFormatter(logging.Formatter):
    """A JSON object per record: time (UTC), level, logger, message, and traceback where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry)
