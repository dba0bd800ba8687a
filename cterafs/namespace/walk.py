"""Directories as a walk through the tree meets them: each one's sub-directories next, in their order.

A query takes a thread hop of some 0.1 ms, in which a small directory could be read several times. So when somebody
walks from one directory to the next, those that come after it are read in the same hop: what lies in it first, then its
siblings. Pure bookkeeping; no I/O.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from cachetools import LRUCache

from cterafs.model import Change, Dirent, Inode

AHEAD = 32
"""Directories read beyond the one that was asked for: what makes the hop a small part of the work."""

SMALL = 100
"""Entries of the largest directory that is worth reading ahead; a larger one pays for its own hop."""

KNOWN = 50_000
"""Directories remembered from the listing of their parents, about 5 MiB: opening them asks nobody."""

WALKS = 64
"""Directories whose sub-directories are being walked: a few programs at once, some ten levels deep each."""


@dataclass(slots=True)
class _Walk:
    """The sub-directories of one directory, and the index of the one that is expected next."""

    directories: list[Inode] = field(default_factory=list)
    expected: int = 0


def come_next(
    entries: Iterable[Dirent], following: Sequence[Inode], read: Callable[[Inode], list[Dirent]]
) -> dict[Inode, list[Dirent]]:
    """The listings of the directories that a walk comes to next.

    Args:
        entries: of the directory where it is.
        following: the directories that it comes to after that.
        read: gives the entries of a directory, one more than `SMALL` at most.
    """
    found: dict[Inode, list[Dirent]] = {}
    ahead = [*reversed(following), *_directories_backwards(entries)]
    while ahead and len(found) < AHEAD:
        directory = ahead.pop()
        if directory in found:  # it lies within itself: what the portal tells may be a cycle
            continue
        found[directory] = listing = read(directory)
        if len(listing) <= SMALL:
            ahead += _directories_backwards(listing)
    return found


def _directories_backwards(entries: Iterable[Dirent]) -> list[Inode]:
    return [entry.inode for entry in entries if entry.is_dir][::-1]


class Walks:
    """What is known of directories since the last change of any of them."""

    def __init__(self) -> None:
        self._parents: LRUCache[Inode, Inode] = LRUCache(KNOWN)
        self._walks: LRUCache[Inode, _Walk] = LRUCache(WALKS)

    def parent(self, directory: Inode) -> Inode | None:
        """The directory that listed this one; None where none did."""
        parent: Inode | None = self._parents.get(directory)
        return parent

    def visit(self, directory: Inode) -> Sequence[Inode] | None:
        """Somebody begins to list `directory`; the answer is what they will list next if they go on so, once they have
        listed what lies in it. None: they do not go from one to the next."""
        walk = self._walks.get(self._parents.get(directory, directory))
        if walk is None or directory not in walk.directories[walk.expected : walk.expected + 1]:
            if walk is not None and directory in walk.directories:
                walk.expected = walk.directories.index(directory) + 1
            return None
        walk.expected += 1
        following: list[Inode] = []
        above = self.parent(directory)
        for _ in range(WALKS):  # its siblings, then those of its parent, and so on; in a cycle that has no end
            if above is None or len(following) >= AHEAD:
                break
            walk = self._walks.get(above)
            if walk is not None:
                following += walk.directories[walk.expected : walk.expected + AHEAD - len(following)]
            above = self.parent(above)
        return following

    def listed(self, directory: Inode, entries: Iterable[Dirent], *, more: bool) -> None:
        """These are the entries of `directory`; `more`: those behind the ones before."""
        found = [entry.inode for entry in entries if entry.is_dir]
        if not found:
            return
        for inode in found:
            self._parents[inode] = directory
        walk = self._walks.get(directory)
        if walk is None or not more:
            walk = self._walks[directory] = _Walk()
        walk.directories.extend(found)

    def forget(self, changes: Iterable[Change]) -> None:
        """Something changed: nobody is expected to go on as before."""
        self._walks.clear()
        for change in changes:
            for node in (change.old, change.new):
                if node is not None and node.is_dir:
                    self._parents.pop(node.inode, None)
