"""Takes back what the kernel cached, when the tree changed.

The kernel may hold names, attributes and data for ever, so each change has to reach it. A notification waits in the
kernel for a lookup that is under way in the same directory, so it is sent from a worker thread that holds no lock,
while the event loop goes on answering.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple

import pyfuse3
import trio

from cterafs.kernel.dentries import Negatives
from cterafs.model import Change, Inode, Node
from cterafs.threads import patiently
from cterafs.volume import Volume

log = logging.getLogger(__name__)

GONE = (errno.ENOENT, errno.ENOTDIR)
"""The kernel does not hold that name (any more): there is nothing to take back."""

UNMOUNTED = (errno.ENOTCONN, errno.ENODEV, errno.EBADF, errno.EINVAL)
"""The connection has ended: nobody is left to tell."""


NO_NAME = b"\xff"
"""Not UTF-8, as all names are that are ever shown."""


class Entry(NamedTuple):
    """Forget a name. `deleted`: the file that is gone, so that whoever watches it hears of it; 0 if it lives on.

    Never a directory: the kernel would take it for dead as long as anybody stands in it, and it can come back.
    """

    parent: Inode
    name: bytes
    deleted: Inode = Inode(0)

    def send(self) -> None:
        try:
            pyfuse3.invalidate_entry(pyfuse3.InodeT(self.parent), pyfuse3.FileNameT(self.name), self.deleted)
        except OSError as error:
            if not self.deleted or error.errno in (*GONE, *UNMOUNTED):
                raise
            # The kernel refuses a deletion of what something is mounted upon.
            Entry(self.parent, self.name).send()


class Attributes(NamedTuple):
    """Ask again for an inode's attributes. `parent` is the directory it lies in.

    An answer with the old ones may be on its way to a kernel that does not know the inode yet, so that there is nothing
    to take back, and they would stay for ever. The kernel takes such an answer in under the lock of the directory, for
    which a notification about any name in there waits.
    """

    inode: Inode
    parent: Inode

    def send(self) -> None:
        try:
            Entry(self.parent, NO_NAME).send()
        except OSError as error:
            if error.errno not in GONE:
                raise
        pyfuse3.invalidate_inode(pyfuse3.InodeT(self.inode), attr_only=True)


Notification = Entry | Attributes


class Notifier:
    """Sends what the kernel has to know of changes, in their order.

    Args:
        negatives: the names that the kernel knows not to exist.
    """

    def __init__(self, volume: Volume, negatives: Negatives) -> None:
        self._volume = volume
        self._negatives = negatives
        self._queue: list[Notification] = []
        self._wakeup = trio.Event()
        self._drained = trio.Event()
        self._drained.set()
        self._stopped = False

    def push(self, changes: Sequence[Change]) -> None:
        """These changes are published."""
        for change in changes:
            self._queue.extend(self._notifications(change))
        if self._queue and not self._stopped:
            self._wakeup.set()
            if self._drained.is_set():
                self._drained = trio.Event()

    async def drained(self) -> None:
        """Returns when the kernel knows all that was pushed, or has ended the connection."""
        await self._drained.wait()

    async def run(self) -> None:
        """Sends until cancelled; a batch that is being sent is finished first, since the session must outlive it."""
        while True:
            await self._wakeup.wait()
            self._wakeup = trio.Event()
            batch, self._queue = self._queue, []
            await patiently(partial(trio.to_thread.run_sync, self._send, batch))
            if not self._queue:
                self._drained.set()

    def stop(self) -> None:
        """The connection is ending: a batch that is being sent is cut short."""
        self._stopped = True
        self._drained.set()

    def _notifications(self, change: Change) -> Iterator[Notification]:
        old, new = change.old, change.new
        if old is not None and self._volume.referenced(old.inode):
            if new is None or new.inode != old.inode or _place(new) != _place(old):
                gone = new is None and not old.is_dir
                yield Entry(old.parent, old.name.encode(), old.inode if gone else Inode(0))
            if new is not None and new.inode == old.inode and _look(new) != _look(old):  # for who has it open
                yield Attributes(old.inode, old.parent)
        if new is None:
            return
        if self._negatives.discard(new.parent, new.name.encode()):
            yield Entry(new.parent, new.name.encode())
        if old is None and new.is_dir:  # back from the dead, whose names were all denied to whoever stood in it
            for name in self._negatives.drop(new.inode):
                yield Entry(new.inode, name)

    def _send(self, batch: Sequence[Notification]) -> None:
        for notification in batch:
            if self._stopped:
                return
            try:
                notification.send()
            except OSError as error:
                if error.errno in UNMOUNTED:
                    return
                if error.errno not in GONE:
                    log.warning("the kernel refused a notification: %s", error)


def _place(node: Node) -> tuple[Inode, str]:
    return node.parent, node.name


def _look(node: Node) -> tuple[int, int, int]:
    """What the kernel caches of an object, and what can change while its inode stays."""
    return node.size, node.mtime_ns, node.ctime_ns
