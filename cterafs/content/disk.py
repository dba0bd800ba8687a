"""The disk tier: decoded blocks that outlive the memory's, and the mount.

A cache whose failure is a miss. Readers look a block up and verify it in their own thread; what is written goes through
a bounded queue to one thread, so that nobody waits for the disk. Several processes, of several portals, may share the
directory and its limit.
"""

from __future__ import annotations

import errno
import logging
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import TypeVar

from cterafs.content import blockfiles
from cterafs.content.blockcodec import BlockCodec
from cterafs.content.blockindex import BusyIndex, DamagedIndex, OtherKind, Place
from cterafs.content.blockstore import BlockStore, Bounds
from cterafs.content.diskqueue import BATCH, TOUCHED, Item, Loan, Work
from cterafs.content.memory import BlockKey

log = logging.getLogger(__name__)

T = TypeVar("T")

PENDING = 32 << 20
"""Bytes that may wait to be written: 8 blocks of 4 MiB, or what the fastest link brings in 25 ms. They count beside the
memory's limit."""

LOANS = 8192
"""Blocks beyond that which may wait as long as they are in memory anyway: 2 GiB of 256 KiB. A disk takes 300 MiB/s
where downloads of 1 GiB/s keep both processors busy, so of a file that fits into the memory, two thirds come late."""

PLACES = 8192
"""Blocks of the largest file that is read without asking the portal where they are: of 2 GiB at least."""

NOTE = 5.0
"""Seconds between two notes of which blocks were asked for; a crash forgets no more."""

WATCH = 30.0
"""Seconds between two looks at the free space while nothing is written."""

TIDY = 0.05
"""Seconds between two directories that are compared with the index: all of them within a quarter of a minute."""

RETRY = 60.0
"""Seconds for which a disk that failed is left alone."""

CLOSING = 2.0
"""Seconds that the end of a mount waits for what is still to be written."""


class DiskCache:
    """Blocks of one portal in a directory. Thread-safe; none of its methods raises an error of the disk.

    Args:
        directory: for our files alone; made if need be.
        scope: tells the portal, and the context there, from others.
        bounds: of all processes together.
        codec: how blocks lie there.
        pending: bytes that may wait to be written; one block always may.

    Attributes:
        hits, misses: blocks that were asked for and were, or were not, on the disk.
        dropped: blocks that were not kept because too many waited to be written, or because the disk refuses them.
        reason: why nothing is read, or written, at the moment; None where all is well.
    """

    def __init__(self, directory: Path, scope: str, bounds: Bounds, codec: BlockCodec, pending: int = PENDING) -> None:
        """Opens the directory. One that cannot be used is a warning, and is tried again later."""
        self.bounds = bounds
        self.hits = self.misses = self.dropped = 0
        self.reason: str | None = None
        self._directory = directory
        self._scope = scope
        self._codec = codec
        self._pending = pending
        self._lock = threading.Condition()
        self._work = Work()
        self._waiting = 0  # bytes that are not written yet
        self._keeping = 0  # threads that wait for room
        self._forgetting = 0  # versions that are not forgotten yet
        self._closing = False
        self._store: BlockStore | None = None
        self._lost: BlockStore | None = None  # to be closed, or set aside
        self._damaged_at = -RETRY
        self._is_damaged = False
        self._is_first = True
        self._openable_at = self._writable_at = 0.0
        self._untidied: deque[int] = deque()
        self._open()
        self._thread = threading.Thread(target=self._run, name="disk cache", daemon=True)
        self._thread.start()

    # --- for any thread ---------------------------------------------------------------------------------------------

    def get(self, key: BlockKey, length: int, origin: str) -> bytes | None:
        """The verified plaintext of a block, or None. Blocks for the disk.

        Args:
            origin: what storage calls the block, without what is signed anew.
        """
        place = Place(self._scope, key, origin, length)
        found = self._attempt(lambda store: store.read(place))
        with self._lock:
            if found is None:
                self.misses += 1
            elif found.data is None:
                self.misses += 1
                self._work.bad.add(found.digest)
                self._lock.notify_all()
            else:
                self.hits += 1
                self._touch(found.digest)
        return None if found is None else found.data

    def has(self, key: BlockKey, length: int, origin: str) -> bool:
        """Whether a block is there, not verified. Asking counts as using it. Blocks for the disk."""
        place = Place(self._scope, key, origin, length)
        digest = self._attempt(lambda store: store.locate(place))
        if digest is not None:
            with self._lock:
                self._touch(digest)
        return digest is not None

    def places(self, file_id: int, version: str) -> list[Place]:
        """Where the blocks of a version belong that are on the disk, in order; none of a huge file. Blocks."""
        with self._lock:
            self._lock.wait_for(lambda: not self._forgetting or self._closing)
        return self._attempt(lambda store: store.places(self._scope, file_id, version, PLACES)) or []

    def forget(self, file_id: int, version: str) -> None:
        """Storage turned out to have something else under this name. Never blocks."""
        with self._lock:
            self._forgetting += 1
            self._work.forget(file_id, version)
            self._lock.notify_all()

    def offer(self, key: BlockKey, data: bytes | memoryview, origin: str) -> None:
        """Keeps a block, which must not change any more. Never blocks.

        What there is no room for waits on loan, which takes no memory: until there is nothing else to write, or it has
        left the memory and is not kept. Of bytes, which cannot be lent (short blocks, and what this process downloaded
        itself), what there is no room for is not kept.
        """
        place = Place(self._scope, key, origin, len(data))
        with self._lock:
            if self._accepts and self._has_room(len(data)):
                self._add(Item(place, data))
            elif self._accepts and isinstance(data, memoryview):
                self._lend(Loan(place, weakref.ref(data)))
            else:
                self.dropped += 1

    def keep(self, key: BlockKey, data: bytes | memoryview, origin: str) -> bool:
        """Keeps a block that is wanted on the disk: what merely passes through leaves before it.

        Blocks until that is done. False where it could not be; `reason` tells why, unless it is larger than the limit.
        """
        kept: Future[bool] = Future()
        item = Item(Place(self._scope, key, origin, len(data)), data, kept=kept)
        item.encode(self._codec)  # in this thread, so that several are encoded at a time
        with self._lock:
            self._keeping += 1
            self._lock.wait_for(lambda: not self._accepts or self._has_room(len(data)))
            self._keeping -= 1
            if not self._accepts:
                self._lock.notify_all()  # nobody keeps loans waiting any more
                return False
            self._add(item)
        return kept.result()

    def flush(self) -> None:
        """Returns when everything so far is written, or was given up; not what is on loan. Blocks."""
        done: Future[None] = Future()
        with self._lock:
            if self._closing:
                return
            self._work.flushes.append(done)
            self._lock.notify_all()
        done.result()

    def used(self) -> int:
        """Bytes of disk in use, by all processes. Blocks for the disk."""
        return self._attempt(lambda store: store.used()) or 0

    def capacity(self) -> int:
        """Bytes of disk that blocks may take now: the limit, or fewer where others need the space. Blocks."""
        return self._attempt(lambda store: store.capacity()) or 0

    def hung(self) -> None:
        """Leaves the disk alone for a while: somebody waited for it in vain."""
        self._fail(OSError(errno.ETIMEDOUT, "the disk does not answer"), self._store)

    def close(self) -> None:
        """Writes what waits to be written; a slow disk is not waited for. Blocks."""
        with self._lock:
            self._closing = True
            self._lock.notify_all()
        self._thread.join(CLOSING)

    @property
    def _accepts(self) -> bool:
        return not self._closing and self._store is not None and time.monotonic() >= self._writable_at

    def _has_room(self, size: int) -> bool:
        return not self._waiting or self._waiting + size <= self._pending

    def _add(self, item: Item) -> None:
        self._work.items.append(item)
        self._waiting += len(item.data)
        self._lock.notify_all()

    def _lend(self, loan: Loan) -> None:
        loans = self._work.loans
        while loans and loans[0].data() is None:  # those that came first leave the memory first
            loans.popleft()
            self.dropped += 1
        if len(loans) < LOANS:
            loans.append(loan)
        else:
            self.dropped += 1

    def _call_in(self) -> None:
        """There is nothing else to write, so what is on loan is, as far as it is still in memory: a batch of it."""
        loans, size = self._work.loans, 0
        while loans and size < BATCH and self._has_room(loans[0].place.length):
            loan = loans.popleft()
            data = loan.data()
            if data is None or not self._accepts:
                self.dropped += 1
            else:
                self._add(Item(loan.place, data))
                size += len(data)

    def _touch(self, digest: bytes) -> None:
        self._work.touched.add(digest)
        if len(self._work.touched) >= TOUCHED:
            self._lock.notify_all()

    # --- failing ----------------------------------------------------------------------------------------------------

    def _attempt(self, action: Callable[[BlockStore], T]) -> T | None:
        """Does something that the disk may refuse; then the answer is None, and the directory is left alone."""
        store = self._store
        if store is None:
            return None
        try:
            return action(store)
        except BusyIndex as error:
            log.debug("the disk cache is busy: %s", error)
        except (DamagedIndex, OSError) as error:
            self._fail(error, store)
        return None

    def _fail(self, error: Exception, store: BlockStore | None) -> None:
        now = time.monotonic()
        with self._lock:
            if store is not self._store:
                return  # another thread has met it as well
            self._store, self._lost = None, store
            self._openable_at = now + RETRY
            if isinstance(error, DamagedIndex) and now - self._damaged_at >= RETRY:  # at once, but not again and again
                self._is_damaged, self._damaged_at, self._openable_at = True, now, now
            self._complain(error)
            self._lock.notify_all()

    def _complain(self, error: Exception) -> None:
        """One warning, however often it is tried again until it works."""
        level = logging.DEBUG if self.reason is not None else logging.WARNING
        self.reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        log.log(level, "the disk cache in %s cannot be used for now: %s", self._directory, self.reason)

    # --- the writing thread -----------------------------------------------------------------------------------------

    def _run(self) -> None:
        closing = False
        while not closing or self._work.is_urgent:
            with self._lock:
                self._lock.wait_for(self._is_awaited, self._pause())
                if self._may_call_in:
                    self._call_in()
                closing, batch = self._closing, self._work.take()
            if not closing and not self._attempt(lambda store: store.is_current):
                self._open()
            self._attempt(partial(self._process, batch=batch))
            with self._lock:
                batch.end()
                self._waiting -= batch.size
                self._forgetting -= len(batch.forgotten)
                self._lock.notify_all()
        if self._store is not None:
            self._store.close()

    def _is_awaited(self) -> bool:
        return self._closing or self._work.is_urgent or self._lost is not None or self._may_call_in

    @property
    def _may_call_in(self) -> bool:
        """There is something on loan, and nothing else has to be written, nor will be at once."""
        return bool(self._work.loans) and not self._work.items and not self._keeping

    def _pause(self) -> float:
        """Seconds until there may be something to do by itself."""
        if self._store is None:
            return max(0.0, self._openable_at - time.monotonic())
        if self._untidied:
            return TIDY
        return NOTE if self._work.touched else WATCH

    def _open(self) -> None:
        with self._lock:
            lost, self._store, self._lost = self._lost or self._store, None, None
        try:
            if lost is not None:
                lost.close()
                if self._is_damaged:
                    lost.set_aside()
            if time.monotonic() < self._openable_at:
                return
            store = BlockStore(self._directory, self.bounds, self._codec, is_first=self._is_first)
        except (BusyIndex, DamagedIndex, OtherKind, OSError) as error:
            self._fail(error, None)
            return
        self._is_damaged = self._is_first = False
        self._untidied = deque(range(blockfiles.DIRECTORIES))
        self._store = store
        self._recover()

    def _process(self, store: BlockStore, batch: Work) -> None:
        if time.monotonic() < self._writable_at:
            return
        try:
            self._write(store, batch)
        except OSError as error:  # what is on the disk may still be read
            self._writable_at = time.monotonic() + RETRY
            self._untidied = deque(range(blockfiles.DIRECTORIES))
            self._complain(error)
        else:
            self._recover()

    def _write(self, store: BlockStore, batch: Work) -> None:
        while store.is_new and self._untidied:  # every file is of another index, and takes space that is not counted
            store.tidy(self._untidied.popleft())
        for file_id, version in batch.forgotten:
            store.forget(self._scope, file_id, version)
        if batch.touched or batch.bad:
            store.note(batch.touched, batch.bad)
        if batch.items:
            kept = store.write([item.encode(self._codec) for item in batch.items])
            for item, is_kept in zip(batch.items, kept, strict=True):
                item.settle(kept=is_kept)
        elif self._untidied:
            store.tidy(self._untidied.popleft())
        else:
            store.shrink()

    def _recover(self) -> None:
        if self.reason is not None and time.monotonic() >= self._writable_at:
            self.reason = None
            log.info("the disk cache in %s works again", self._directory)
