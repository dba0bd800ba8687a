"""A directory as the portal's content: what happens in it becomes events."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

import watchfiles

from cterafs.demo.mirror import Mirror
from cterafs.demo.namespace import Namespace

QUIET_MS = 50
"""Changes are told once none came for this long, so that the halves of a rename come together."""

LONGEST_MS = 400
"""Changes that do not stop are told after this long all the same."""

IDLE_MS = 200
"""How often the watcher comes back with nothing; the first time tells that it watches."""

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
            OSError: it cannot be read.
        """
        if self._thread is not None:
            return
        next(self._root.iterdir(), None)  # one that cannot be read must not pass for an empty one
        with self._namespace.silence():
            self._mirror.update_all()
        self._thread = threading.Thread(target=self._follow, name="source", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        if self._thread is not None:
            self._stop.set()
            self._thread.join()
        self._mirror.close()

    def _follow(self) -> None:
        try:
            self._watch()
        except OSError as error:  # such as too many watches for this user
            _log.error("changes in %s are no longer followed: %s", self._root, error)

    def _watch(self) -> None:
        watching = False
        for changes in watchfiles.watch(
            self._root,
            watch_filter=None,
            step=QUIET_MS,
            debounce=LONGEST_MS,
            rust_timeout=IDLE_MS,
            yield_on_timeout=True,
            stop_event=self._stop,
            raise_interrupt=False,
            ignore_permission_denied=True,
        ):
            if watching:
                self._mirror.update(Path(path) for _, path in changes)
            else:
                watching = True
                self._mirror.update_all()  # what happened between the first reading and now was not told
