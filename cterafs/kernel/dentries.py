"""The names that the kernel knows not to exist.

It may keep such an answer for ever, so each one has to be remembered until it is taken back: when the name appears, the
kernel is told. Names that the kernel does not hold are not notified, since the kernel takes only some 6,000
notifications a second.
"""

from __future__ import annotations

from cterafs.model import Inode

LIMIT = 100_000
"""Names remembered: about 20 MiB. Beyond that, the kernel is told to ask again each time."""


class Negatives:
    """Names that were answered with "there is none", by directory."""

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._count = 0
        self._names: dict[Inode, set[bytes]] = {}

    def add(self, parent: Inode, name: bytes) -> bool:
        """True: remembered, so the kernel may keep the answer."""
        if name in self._names.get(parent, ()):
            return True
        if self._count >= self._limit:
            return False
        self._names.setdefault(parent, set()).add(name)
        self._count += 1
        return True

    def discard(self, parent: Inode, name: bytes) -> bool:
        """The name exists now. True: the kernel holds the old answer and must be told."""
        names = self._names.get(parent)
        if names is None or name not in names:
            return False
        names.discard(name)
        self._count -= 1
        if not names:
            del self._names[parent]
        return True

    def drop(self, parent: Inode) -> set[bytes]:
        """Forgets all names of a directory, and gives them: the kernel forgot it, or they may all exist now."""
        names = self._names.pop(parent, set())
        self._count -= len(names)
        return names

    def __len__(self) -> int:
        return self._count
