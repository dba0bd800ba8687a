"""The one writer of the index: events in, changes of the mount out, each batch one transaction."""

from __future__ import annotations

import contextlib
import itertools
import logging
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, Literal

import msgspec

from cterafs.model import Change, Cursor, Event, FolderInfo
from cterafs.namespace import naming
from cterafs.namespace.batch import Batch
from cterafs.namespace.building import attach, build, concerns_readers, detach, folded
from cterafs.namespace.disk import commit, disk_errors, interruptible
from cterafs.namespace.edit import Edit, Totals
from cterafs.namespace.findable import make_findable
from cterafs.namespace.guid import guid_key
from cterafs.namespace.known import Known
from cterafs.namespace.relisting import Relisting
from cterafs.namespace.rows import COLUMNS, integer, node, read, stored, stored_or_none
from cterafs.namespace.schema import (
    CLOSED,
    CLOUD_FOLDER,
    DAMAGED,
    DETACHED,
    FILE,
    IDLE,
    LISTING,
    OPEN,
    ROOT,
    ROWS,
    SWEEPING,
    UNKNOWN,
)
from cterafs.namespace.staging import Staging, remove
from cterafs.namespace.store import Store, UnknownParent

__all__ = ["Batch", "Layout", "Tree"]

Layout = Literal["folder", "owner"]

log = logging.getLogger(__name__)

_STAGED_FROM: Final = 250_000  # entries: up to here somebody who reads meanwhile sees the first import grow
_COPIED_FROM: Final = 5_000  # rows written: 12,500 pages of log, 75 ms to copy; the more, the fewer are copied twice
_APPLIED_AT_ONCE: Final = 2_000  # as many as a page of events has
_APPEARED: Final = (
    f"SELECT {COLUMNS} FROM entry WHERE id > ? AND id < ? AND kind >= {FILE} AND parent < ? AND parent > 0"
    " ORDER BY id LIMIT ?"
)
_CLOUD_FOLDERS: Final = f"SELECT {COLUMNS} FROM entry WHERE kind = {CLOUD_FOLDER}"


class Tree:
    """Applies events to a store. One at a time, from any thread; a batch is committed or rolled back before the next.

    Args:
        shown_meanwhile: somebody reads while the first import goes on, so its first pages are shown as they come. That
            takes half as much time again as staging them.

    Raises (all methods):
        StateError: the disk is full, read-only or failing; nothing was changed.
    """

    def __init__(self, store: Store, *, layout: Layout = "folder", shown_meanwhile: bool = True) -> None:
        self.store: Final = store
        self._layout: Final[Layout] = layout
        self._shown_meanwhile: Final = shown_meanwhile
        self._known: Final = Known()
        self._logged = 0  # rows written since the log was last copied back
        self._staging: Staging | None = None
        self._untold: tuple[int, int, int] | None = None  # the first and last row built, and the last told of
        self._db: Final = store.writer()
        self._relisting: Final = Relisting(self._db)
        try:
            self._adopt_layout()
            self._resume_staging()
        except BaseException:
            self._db.close()
            raise

    def close(self) -> None:
        """Ends writing; harmless where the disk fails."""
        if self._staging is not None:
            self._staging.close()
        try:
            self._db.execute(f"UPDATE state SET open = {CLOSED} WHERE open = {OPEN}")
        except sqlite3.Error as error:
            log.warning("%s is not closed properly, and is checked at the next mount: %s", self.store.database, error)
        self._db.close()

    def condemn(self) -> None:
        """Notes that the index is damaged, so that the next mount sets it aside and imports the namespace again."""
        try:
            self._db.execute(f"UPDATE state SET open = {DAMAGED}")
        except sqlite3.Error as error:  # too damaged for that, it is found when it is opened
            log.debug("%s is not marked as damaged: %s", self.store.database, error)

    def __enter__(self) -> Tree:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def prepare(
        self,
        events: Iterable[Event],
        cursor: Cursor | None = None,
        *,
        listing: bool = False,
        complete: bool = False,
        asked: Iterable[str] = (),
    ) -> Batch:
        """Applies a page of events.

        Args:
            cursor: where the feed goes on after the page; None leaves it (the answer of `ancestors`).
            listing: the page belongs to the listing of the namespace from its beginning.
            complete: nothing more is to be had for now. Together with `listing`: the listing has ended.
            asked: guids that `questions` gave. Those still unknown are not asked about again until something new names
                them; those in doubt, of which these events do not tell, are removed.
        """
        latest = {event.guid: event for event in events if event.guid}
        if self._staging is not None or (listing and not complete and self._shall_stage()):
            return self._stage(list(latest.values()), cursor, complete=listing and complete)
        keyed = [(guid_key(guid), None if event.deleted else event) for guid, event in latest.items()]
        answered = latest.keys()
        unanswered = [guid_key(guid) for guid in asked if guid not in answered]
        with self._editing() as edit:
            relist = self._state("relist")
            if relist == SWEEPING:
                keyed += [(key, None) for key in unanswered if self._relisting.is_unseen(key)]
            changes = self._apply(edit, keyed, unanswered)
            if relist != IDLE:
                self._relisting.mark(edit.items[key].new for key, event in keyed if event is not None)
            if cursor is not None:
                self._set(cursor=stored(cursor))
            if listing and complete:
                self._set(imported=1, relist=SWEEPING if relist != IDLE else IDLE)
                make_findable(self._db)
        return self._batch(changes)

    def set_folders(self, folders: Iterable[FolderInfo]) -> Batch:
        """Takes over who owns which cloud folder; they are named and placed by it."""
        told = {f.folder_id: f for f in folders if integer(f.folder_id) is not None}
        with self._editing() as edit:
            before = dict(self._db.execute("SELECT folder_id, owner FROM folder"))
            rows = [(f.folder_id, stored(f.name), stored_or_none(f.owner)) for f in told.values()]
            self._db.execute("DELETE FROM folder")
            self._db.executemany("INSERT INTO folder VALUES (?, ?, ?)", rows)
            after = {folder_id: owner for folder_id, _, owner in rows}
            for folder_id in before.keys() | after.keys():
                if before.get(folder_id) != after.get(folder_id):
                    edit.add_rows(self._db.execute(f"{_CLOUD_FOLDERS} AND folder_id = ?", (folder_id,)))
            changes = self._finish(edit)
        return self._batch(changes)

    @property
    def log_is_long(self) -> bool:
        """`checkpoint` has something to do."""
        return self._logged >= _COPIED_FROM

    def checkpoint(self) -> None:
        """Copies the log back into the database, and brings up to date what `find` goes by.

        Apart from the commits, so that a change is seen before it is done.
        """
        self._logged = 0
        with self._editing():
            self._known.stale.merge(self._db)
            commit(self._db)
        with disk_errors(self.store.database, "written"):
            self._db.execute("PRAGMA wal_checkpoint(PASSIVE)")

    # -- listing again

    def begin_relist(self, selection: Sequence[int] = ()) -> None:
        """Starts from the beginning of the feed, for these folder ids. What is known is served until the end.

        What the listing mentions is marked; `sweep` removes the rest once it is complete. The marks are committed with
        the pages, so that a crash resumes in the middle.
        """
        with self._editing():
            self._relisting.begin()
            self._set(staging=0)
            known = self._db.execute("SELECT EXISTS (SELECT 1 FROM entry WHERE id <> ?)", (ROOT,)).fetchone()[0]
            # What was asked about in vain may be known now.
            self._db.execute(f"UPDATE entry SET kind = {UNKNOWN} WHERE kind <= {DETACHED}")
            text = msgspec.json.encode(sorted(set(selection))).decode()
            # Where nothing is known yet, there is nothing to mark and to sweep.
            self._set(cursor=None, selection=text, relist=LISTING if known else IDLE)
            commit(self._db)
        self._discard_staging()

    @property
    def sweeping(self) -> bool:
        """The listing is complete and what it did not mention is still to be removed."""
        return self.store.relist == SWEEPING

    def questions(self, limit: int) -> Sequence[UnknownParent]:
        """Some of what the portal is to be asked about, before anything is swept; `prepare` takes the answers.

        Unknown parents, and what the complete listing did not mention although something in it did: a listing leaves
        directories out that there are.
        """
        unknown = self.store.unknown_parents(limit)
        if unknown or not self.sweeping:
            return unknown
        with disk_errors(self.store.database, "read"):
            return self._relisting.doubtful(limit)

    def sweep(self) -> Batch:
        """Removes some of what the complete listing did not mention; call it until `sweeping` ends."""
        with self._editing() as edit:
            rows, last = self._relisting.unseen()
            edit.add_rows(rows)
            edit.renumber((row[1], None) for row in rows)
            for row in rows:
                edit.remove(row[1])
            changes = self._finish(edit)
            if last:
                self._relisting.end()
                self._set(relist=IDLE)
        return self._batch(changes)

    # -- the first listing, when it is large

    @property
    def unfinished(self) -> bool:
        """The listing is complete, and what was staged of it is not all shown: call `proceed` until it is."""
        staged = self._staging is not None and bool(self._staging.state("complete"))
        return staged or self._untold is not None

    def proceed(self, alive: Callable[[], None] | None = None) -> Batch:
        """The next step while `unfinished`: building what was staged, telling of it.

        Args:
            alive: called now and then; an exception from it ends the step with a StateError, and nothing was changed.
                Building takes a minute for ten million entries.
        """
        if self._staging is not None and self._state("staging"):
            with interruptible(alive, self._staging.db, self._db):
                return self._build(self._staging)
        if self._untold is None:
            raise RuntimeError("nothing is unfinished")
        return self._tell(*self._untold)

    def _shall_stage(self) -> bool:
        with disk_errors(self.store.database, "read"):
            imported, rows = self._db.execute("SELECT imported, files + directories FROM state").fetchone()
        return not imported and rows >= (_STAGED_FROM if self._shown_meanwhile else 0)

    def _stage(self, events: Sequence[Event], cursor: Cursor | None, *, complete: bool) -> Batch:
        staging = self._staging
        if staging is None:
            staging = Staging.begin(self.store.staging, self._db)
            with self._editing():
                self._set(staging=1)
                commit(self._db)
            self._staging = staging
        staging.stage(events, cursor, complete=complete)
        return Batch(staging.db, staging.path, staging.forget, ())

    def _build(self, staging: Staging) -> Batch:
        staging.settle()
        with disk_errors(self.store.database, "written"):
            attach(self._db, staging.path)
        first, last = staging.state("first"), staging.state("next_inode")
        with self._editing():
            built = build(self._db, self._known.acls, first=first)
            self._known.forget()  # what was stale is not any more
            self._count(Totals(built.files, built.directories, built.bytes, built.orphans))
            relist = self._state("relist")
            if relist != IDLE:
                self._relisting.mark_built()
            self._set(next_id=last, cursor=staging.state("cursor"), staging=0, imported=1)
            changes = [*built.changes, *self._apply_odd(staging, mark=relist != IDLE)]
            self._set(relist=SWEEPING if relist != IDLE else IDLE)
            make_findable(self._db)
        self._untold = (first, last, first - 1)
        return self._batch([change for change in folded(changes) if concerns_readers(change, first, last)])

    def _apply_odd(self, staging: Staging, *, mark: bool) -> Iterator[Change]:
        odd = staging.odd()
        while events := list(itertools.islice(odd, _APPLIED_AT_ONCE)):
            edit = self._edit()
            yield from self._apply(edit, [(guid_key(e.guid), None if e.deleted else e) for e in events], ())
            if mark:
                self._relisting.mark(edit.items[guid_key(e.guid)].new for e in events if not e.deleted)

    def _tell(self, first: int, last: int, after: int) -> Batch:
        """What was built has appeared in directories that readers knew before."""
        self._clear_up()
        with self._editing():
            rows = self._db.execute(_APPEARED, (after, last, first, _APPLIED_AT_ONCE)).fetchall()
            changes = [Change(None, node(row, self._known.acls.text(self._db, row.acl))) for row in map(read, rows)]
        self._untold = (first, last, rows[-1][0] & ROWS) if len(rows) == _APPLIED_AT_ONCE else None
        return self._batch(changes)

    def _clear_up(self) -> None:
        """Once the index is committed, the staging goes, and the log that held all of it is copied back."""
        if self._staging is None:
            return
        with disk_errors(self.store.database, "written"):
            detach(self._db)
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._discard_staging()

    def _resume_staging(self) -> None:
        if not self._state("staging"):
            self._discard_staging()
            return
        self._staging = Staging.resume(self.store.staging, self.store.generation)
        if self._staging is None:
            log.warning("%s is lost; the namespace is listed again", self.store.staging)
            self.begin_relist(self.store.selection)

    def _discard_staging(self) -> None:
        if self._staging is not None:
            self._staging.close()
            self._staging = None
        remove(self.store.staging)

    # -- inside a transaction

    @contextlib.contextmanager
    def _editing(self) -> Iterator[Edit]:
        """Begins a transaction, which stays open behind the block; an exception ends it without a trace."""
        with disk_errors(self.store.database, "written"):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._edit()
            except BaseException:
                self._known.forget()
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    def _apply(
        self, edit: Edit, keyed: Sequence[tuple[bytes, Event | None]], unanswered: Sequence[bytes]
    ) -> list[Change]:
        parents = {e.parent_guid for _, e in keyed if e is not None and e.parent_guid}
        edit.load([*(key for key, _ in keyed), *unanswered], parents)
        edit.renumber(keyed)
        for key, event in keyed:
            if event is None:
                edit.remove(key)
            else:
                edit.put(key, event)
        for key in unanswered:
            edit.give_up(key)
        return self._finish(edit)

    def _finish(self, edit: Edit) -> list[Change]:
        naming.settle(edit)
        changes = edit.write()
        self._logged += len(edit.items)
        self._set(next_id=edit.next_id)
        self._count(edit.totals)
        return changes

    def _count(self, delta: Totals) -> None:
        self._set(
            files=self._state("files") + delta.files,
            directories=self._state("directories") + delta.directories,
            bytes=str(int(self._state("bytes")) + delta.bytes),
            orphans=self._state("orphans") + delta.orphans,
        )

    def _batch(self, changes: Sequence[Change]) -> Batch:
        return Batch(self._db, self.store.database, self._known.forget, changes)

    def _edit(self) -> Edit:
        return Edit(self._db, self._known, next_id=self._state("next_id"), layout=self._layout)

    def _adopt_layout(self) -> None:
        """Places the cloud folders as this mount wants them; before anyone reads, so without changes to tell."""
        with self._editing() as edit:
            if self._state("layout") != self._layout:
                edit.add_rows(self._db.execute(_CLOUD_FOLDERS))
                self._finish(edit)
                self._set(layout=self._layout)
            self._set(open=OPEN)
            commit(self._db)

    def _state(self, column: str) -> Any:
        return self._db.execute(f"SELECT {column} FROM state").fetchone()[0]

    def _set(self, **columns: object) -> None:
        names = ", ".join(f"{column} = ?" for column in columns)
        self._db.execute(f"UPDATE state SET {names}", tuple(columns.values()))
