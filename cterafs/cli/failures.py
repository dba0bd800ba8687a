"""From an exception to what the user gets: an exit status and one line."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cterafs import errors

FAILED = 1
USAGE = 2
CREDENTIALS = 3
UNREACHABLE = 4
MOUNTPOINT = 5
INTERRUPTED = 130  # 128 + SIGINT
BROKEN_PIPE = 141  # 128 + SIGPIPE: whoever read our output has had enough

_STATUSES: tuple[tuple[type[Exception], int], ...] = (
    (errors.ConfigError, USAGE),
    (errors.AuthenticationError, CREDENTIALS),
    (errors.SessionExpired, CREDENTIALS),
    (errors.AuthorizationError, CREDENTIALS),
    (errors.DecryptKeyError, CREDENTIALS),
    (errors.PortalConnectionError, UNREACHABLE),
    (errors.PortalTimeout, UNREACHABLE),
    (errors.BlockListConnectionError, UNREACHABLE),
    (errors.BlockListTimeout, UNREACHABLE),
    (errors.DownloadConnectionError, UNREACHABLE),
    (errors.DownloadTimeout, UNREACHABLE),
    (errors.MountError, MOUNTPOINT),
    (errors.CteraError, FAILED),
)


@dataclass(frozen=True, slots=True)
class Failure:
    """How a command ends: `message` is empty where there is nothing to say, `is_bug` where nobody foresaw it."""

    status: int
    message: str
    is_bug: bool = False


def failure(error: BaseException) -> Failure:
    """What an exception means for the user. Of a group, its most serious member counts."""
    return max((_single(leaf) for leaf in _leaves(error)), key=_seriousness)


def _seriousness(found: Failure) -> int:
    """An interrupt is what the user wants; a bug must not hide behind a failure that was foreseen."""
    if found.status == INTERRUPTED:
        return 3
    if found.is_bug:
        return 2
    return 0 if found.status == BROKEN_PIPE else 1


def _leaves(error: BaseException) -> Iterator[BaseException]:
    pending = [error]
    while pending:
        current = pending.pop()
        if isinstance(current, BaseExceptionGroup):
            pending.extend(reversed(current.exceptions))
        else:
            yield current


def _single(error: BaseException) -> Failure:
    if isinstance(error, KeyboardInterrupt):
        return Failure(INTERRUPTED, "")
    if isinstance(error, BrokenPipeError):
        return Failure(BROKEN_PIPE, "")
    if isinstance(error, errors.StreamError) and error.__cause__ is not None:
        return _single(error.__cause__)  # a stream breaks for a reason, and that is what can be helped
    for kind, status in _STATUSES:
        if isinstance(error, kind):
            return Failure(status, printable(str(error)))
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename is not None else ""
        return Failure(FAILED, printable(f"{where}{error.strerror}"))
    return Failure(FAILED, f"unexpected {_place(error)}; run again with -v for the details", is_bug=True)


def _place(error: BaseException) -> str:
    """The type, and where; not the text, because nobody has checked that it holds no secret."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{where}"


def printable(text: str) -> str:
    """One line without control characters: names that others choose must not drive the user's terminal."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)
