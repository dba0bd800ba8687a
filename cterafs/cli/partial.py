"""A download under way: `FILE.part`, which becomes `FILE` when it is complete, and can be taken up again until then.

Beside it lies `FILE.part.blocks`: a line that says which bytes of which file are wanted, then a line for each block
that is in the part, with a digest of where the block lies in storage. New content lies elsewhere, so a part is taken
up only where the portal still lists the same blocks: half of one version is never joined to half of another.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from cterafs.errors import StateError

# A block counts as written once the disk has it: half a second's work of a fast disk is what a power cut may cost.
SYNC_AFTER = 64 << 20

# Bytes of a name that leave room for what we add to it, in the 255 that a file system takes.
LONGEST_STEM = 255 - len(".part.blocks")


@dataclass(frozen=True, slots=True)
class Mark:
    """A block in the part: `size` is the part's size behind it, `digest` tells the block from any other."""

    size: int
    digest: str


def block_digest(path: str, length: int) -> str:
    """Names a block by its place in storage and its length in bytes."""
    return hashlib.sha256(f"{length} {path}".encode()).hexdigest()[:32]


class Partial:
    """The part of one download. Only one process at a time has it; use it by `with`."""

    def __init__(self, destination: Path, identity: Mapping[str, int]) -> None:
        """Takes the part, as far as it is there.

        Args:
            destination: the file that it will become.
            identity: what is wanted; a part that was begun for anything else is dropped.

        Raises:
            OSError: it cannot be written.
            StateError: another process writes it.
        """
        self._destination = destination
        stem = _shortened(destination.name)
        self.path = destination.with_name(f"{stem}.part")
        self._journal_path = destination.with_name(f"{stem}.part.blocks")
        self._header = json.dumps(dict(sorted(identity.items())))
        self._pending: list[Mark] = []
        self._size = self._synced = 0
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._data = open(os.open(self.path, flags, 0o666), "r+b")  # noqa: SIM115, PTH123 (closed by `close`)
        try:
            fcntl.flock(self._data, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not self._is_still_the_part():
                raise BlockingIOError
            self.marks: Sequence[Mark] = self._read_marks()
            self._journal = open(os.open(self._journal_path, flags, 0o600), "r+b")  # noqa: SIM115, PTH123
        except BlockingIOError:
            self._data.close()
            raise StateError(f"another process is writing {self.path}") from None
        except BaseException:
            self._data.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def keep(self, count: int) -> int:
        """Go on behind the first `count` of `marks`, dropping the rest; returns the part's size then, in bytes."""
        kept = self.marks[:count]
        with self._named():
            self._journal.truncate(0)
            self._journal.seek(0)
            self._journal.write(f"{self._header}\n".encode())
            self._size = self._synced = kept[-1].size if kept else 0
            self._data.truncate(self._size)
            self._data.seek(self._size)
            self._append(kept)
        return self._size

    def write(self, data: bytes | memoryview, digest: str) -> None:
        """Append a block."""
        with self._named():
            self._data.write(data)
            self._size += len(data)
            self._pending.append(Mark(self._size, digest))
            if self._size - self._synced >= SYNC_AFTER:
                self._sync()

    def finish(self) -> None:
        """Make it the file that it was meant to be."""
        with self._named():
            self._sync()
            self.path.replace(self._destination)
        self._journal_path.unlink(missing_ok=True)

    def close(self) -> None:
        """Let it lie, for another time, unless it was finished."""
        try:
            if self._pending:
                with self._named():
                    self._sync()
        finally:
            self._pending.clear()
            with contextlib.suppress(OSError):  # of the buffer's rest: what counts has been synced, or has failed above
                self._data.close()
            self._journal.close()

    def _is_still_the_part(self) -> bool:
        """False where its owner finished it between our opening and our locking: then it is somebody's file now."""
        try:
            return os.path.samestat(os.fstat(self._data.fileno()), self.path.stat())
        except FileNotFoundError:
            return False

    def _sync(self) -> None:
        """First the data, then the marks that vouch for it."""
        self._data.flush()
        os.fdatasync(self._data.fileno())
        self._append(self._pending)
        self._pending.clear()
        self._synced = self._size

    def _append(self, marks: Sequence[Mark]) -> None:
        self._journal.write("".join(f"{mark.size} {mark.digest}\n" for mark in marks).encode())
        self._journal.flush()

    def _read_marks(self) -> list[Mark]:
        """What the journal vouches for, up to its first line that makes no sense."""
        try:
            header, *lines = self._journal_path.read_text("ascii").splitlines()
        except (OSError, ValueError):
            return []
        available = os.fstat(self._data.fileno()).st_size
        marks: list[Mark] = []
        for line in lines if header == self._header else []:
            size, _, digest = line.partition(" ")
            if not size.isdecimal() or len(digest) != 32 or not _last(marks) < int(size) <= available:
                break
            marks.append(Mark(int(size), digest))
        return marks

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        """Errors of an open file do not tell its name, and the user needs it."""
        try:
            yield
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from None


def _shortened(name: str) -> str:
    """The name, or where it is too long to be added to, its beginning with a digest of it."""
    encoded = os.fsencode(name)
    if len(encoded) <= LONGEST_STEM:
        return name
    digest = hashlib.sha256(encoded).hexdigest()[:16]
    return f"{encoded[: LONGEST_STEM - len(digest) - 1].decode(errors='ignore')}~{digest}"


def _last(marks: Sequence[Mark]) -> int:
    return marks[-1].size if marks else 0
