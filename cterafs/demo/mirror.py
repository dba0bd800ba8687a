"""Keeps a namespace like a directory: compares the two, and does what makes them equal.

Only regular files and directories are shown; symbolic links, sockets and names that are not UTF-8 are left out, and so
are files beside the cloud folders. A file or directory keeps its guid when it is renamed or moved within its cloud
folder, which its device and inode number tell, and a file when another one replaces it under its name, as editors do.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Iterable
from pathlib import Path

from cterafs.demo.files import Identity, OpenFiles, SourceFile, Stamp, identity, stamp
from cterafs.demo.namespace import Namespace
from cterafs.demo.objects import Item

_log = logging.getLogger(__name__)

Found = dict[str, os.stat_result]


class Mirror:
    """Not thread-safe, but files may be read meanwhile.

    Args:
        root: the directory whose sub-directories are the cloud folders.
        namespace: nobody else changes it.
        owner: of the cloud folders, a user's uid.
    """

    def __init__(self, root: Path, namespace: Namespace, owner: int) -> None:
        self._root = root
        self._namespace = namespace
        self._owner = owner
        self._files = OpenFiles(root)
        self._items: dict[Identity, Item] = {}
        self._stamps: dict[Item, Stamp] = {}
        self._missing: dict[Item, None] = {}

    def close(self) -> None:
        self._files.close()

    def update_all(self) -> None:
        """Compare everything."""
        self._update([self._root], deep=True)

    def update(self, paths: Iterable[Path]) -> None:
        """Compare the directories in which these paths lie, with what is below where it is new."""
        directories = {path.parent for path in paths}
        self._update(sorted(each for each in directories if each.is_relative_to(self._root)), deep=False)

    def _update(self, directories: Iterable[Path], *, deep: bool) -> None:
        # Under the lock: nobody sees a change before it is told.
        with self._namespace.lock, self._namespace.batch():
            for directory in directories:
                if directory == self._root:
                    self._compare_top(deep=deep)
                elif (item := self._find(directory)) is not None:
                    self._compare_tree(item, directory, deep=deep)
            for item in list(self._missing):
                self._delete(item)
            self._missing.clear()

    def _find(self, directory: Path) -> Item | None:
        first, *rest = directory.relative_to(self._root).parts
        item = next((folder.root for folder in self._namespace.folders if folder.name == first), None)
        for name in rest:
            item = item.children.get(name) if item else None
        return item if item and item.is_dir else None

    def _compare_top(self, *, deep: bool) -> None:
        found = {name: status for name, status in _entries(self._root).items() if stat.S_ISDIR(status.st_mode)}
        known = {self._stamps[folder.root].identity: folder.root for folder in self._namespace.folders}
        for name, status in found.items():
            root = known.pop(identity(status), None)
            same = root is not None and root.name == name
            if root is None:
                root = self._namespace.create_folder(name, self._owner)
            elif not same:
                self._namespace.rename(root, name)
            if deep or not same or self._stamps[root] != stamp(status):
                self._remember(root, stamp(status))
                self._compare_tree(root, self._root / name, deep=deep or not same)
        self._missing.update(dict.fromkeys(known.values()))

    def _compare_tree(self, top: Item, directory: Path, *, deep: bool) -> None:
        pending = [(top, directory, deep)]
        while pending:
            parent, path, deep = pending.pop()
            found = _entries(path)
            self._set_aside(parent, found)
            fresh = {name: status for name, status in found.items() if name not in parent.children}
            for name, child in parent.children.items():
                now = stamp(found[name])
                if not child.is_dir:
                    self._refresh(child, now)
                elif deep or self._stamps[child] != now:
                    # Another time of modification: it may have been made anew, and what was told under another path.
                    self._remember(child, now)
                    pending.append((child, path / name, deep))
            for name, status in fresh.items():
                child = self._adopt(parent, name, status) or self._create(parent, name, status)
                if child.is_dir:
                    pending.append((child, path / name, True))

    def _set_aside(self, parent: Item, found: Found) -> None:
        """Free the names that mean something else now; who had them may turn up elsewhere."""
        here = {identity(status) for status in found.values()}
        for name, child in list(parent.children.items()):
            status = found.get(name)
            if status is None or self._is_another(child, status, here):
                self._namespace.detach(child)
                self._missing[child] = None

    def _is_another(self, child: Item, status: os.stat_result, here: set[Identity]) -> bool:
        if child.is_dir != stat.S_ISDIR(status.st_mode):
            return True
        before, now = self._stamps[child].identity, identity(status)
        if child.is_dir or before == now:
            return before != now
        # A file that was replaced keeps its guid, unless both sides of it were only renamed, as when logs are rotated.
        return before in here and now in self._items

    def _refresh(self, child: Item, now: Stamp) -> None:
        """New content, if it is new."""
        if self._stamps[child] != now:
            self._namespace.write(child, SourceFile(self._files, now, child), mtime_ns=now.mtime_ns)
            self._remember(child, now)

    def _adopt(self, parent: Item, name: str, status: os.stat_result) -> Item | None:
        """What was renamed or moved to this name, if something was."""
        item = self._items.get(identity(status))
        if (
            item is None
            or item.folder_id != parent.folder_id
            or item.parent is None
            or item.is_dir != stat.S_ISDIR(status.st_mode)
            or item in parent.lineage()  # the directory may change while it is compared
            or self._is_in_place(item)
        ):
            return None
        self._missing.pop(item, None)
        self._namespace.move(item, parent, name)
        if not item.is_dir:
            self._refresh(item, stamp(status))
        return item

    def _is_in_place(self, item: Item) -> bool:
        """It is where it was: what looks like it is another link to it."""
        if item in self._missing:
            return False
        try:
            return identity((self._root / item.path).lstat()) == self._stamps[item].identity
        except OSError:
            return False

    def _create(self, parent: Item, name: str, status: os.stat_result) -> Item:
        now = stamp(status)
        if stat.S_ISDIR(status.st_mode):
            item = self._namespace.mkdir(parent, name, mtime_ns=now.mtime_ns)
        else:
            content = SourceFile(self._files, now)
            with self._namespace.lock:  # nobody may read before the content knows where it lies
                content.item = item = self._namespace.create(parent, name, content, mtime_ns=now.mtime_ns)
        self._remember(item, now)
        return item

    def _remember(self, item: Item, now: Stamp) -> None:
        self._release(item)
        self._stamps[item] = now
        self._items[now.identity] = item

    def _release(self, item: Item) -> None:
        before = self._stamps.pop(item, None)
        if before is not None and self._items.get(before.identity) is item:
            del self._items[before.identity]

    def _delete(self, item: Item) -> None:
        self._namespace.delete(item)
        for gone in item.subtree():
            self._release(gone)


def _entries(directory: Path) -> Found:
    """The regular files and directories in a directory; none where it has gone, or may not be read."""
    found: Found = {}
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                try:
                    entry.name.encode()
                    status = entry.stat(follow_symlinks=False)
                except UnicodeEncodeError:
                    _log.warning("left out, for its name is not UTF-8: %r in %s", entry.name, directory)
                    continue
                except FileNotFoundError:
                    continue  # deleted since it was listed
                if stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode):
                    found[entry.name] = status
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except PermissionError as error:
        _log.warning("shown as empty: %s", error)
    return found
