"""A directory as the portal's content: what happens in it becomes events."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

from watchfiles._rust_notify import RustNotify, WatchfilesRustInternalError

from cterafs.demo.mirror import Mirror
from cterafs.demo.namespace import Namespace

QUIET_MS = 50
"""Changes are told once none came for this long, so that the halves of a rename come together."""

LONGEST_MS = 400
"""Changes that do not stop are told after this long all the same."""

_log = logging.getLogger(__name__)


class Source:
    """Follows a directory in a thread of its own.

    Args:
        root: the directory whose sub-directories are the cloud folders.
        namespace: what is kept like it; nobody else may change it.
        owner: of the cloud folders, a user's uid.
    """

    def __init__(self, root: Path, namespace: Namespace, owner: int) -> None:
        self._root = root.resolve()
        self._namespace = namespace
        self._mirror = Mirror(self._root, namespace, owner)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Read the whole directory, and begin to follow it, if that was not done before.

        Raises:
            OSError: it cannot be read, or not be followed.
        """
        if self._thread is not None:
            return
        next(self._root.iterdir(), None)  # one that cannot be read must not pass for an empty one
        watcher = self._watch()  # before reading: what happens meanwhile is compared once more
        with self._namespace.silence():
            self._mirror.update_all()
        self._thread = threading.Thread(target=self._run, args=(watcher,), name="source", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        if self._thread is not None:
            self._stop.set()
            self._thread.join()
        self._mirror.close()

    def _watch(self) -> RustNotify:
        # The library's documented lower level: its generator does not tell when the watch has begun.
        try:
            return RustNotify([str(self._root)], False, False, 0, True, True)  # recursive, past what may not be read
        except WatchfilesRustInternalError as error:
            raise OSError(f"changes in {self._root} cannot be followed: {error}") from None

    def _run(self, watcher: RustNotify) -> None:
        try:
            self._follow(watcher)
        except OSError as error:
            _log.error("%s", error)

    def _follow(self, watcher: RustNotify) -> None:
        while not self._stop.is_set():
            try:
                changes = watcher.watch(LONGEST_MS, QUIET_MS, 0, self._stop)
            except WatchfilesRustInternalError as error:
                # It gives up on names that are not UTF-8.
                _log.warning("comparing all of %s: %s", self._root, error)
                watcher.close()
                watcher = self._watch()
                self._mirror.update_all()
                continue
            if isinstance(changes, set):
                self._mirror.update(Path(path) for _, path in changes)
        watcher.close()
