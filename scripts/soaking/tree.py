"""The portal's files: some that never change, and some that change all the time."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

from cterafs.demo.namespace import Namespace
from cterafs.demo.objects import Item
from soaking.content import KINDS, Version, keys

STABLE, CHANGING = "Stable", "Changing"

FILES = {"small": 300, "medium": 30, "large": 6}
"""That never change: some 150 MiB."""

CHANGING_FILES = 150
DIRECTORIES = 12

SHARES = {"small": 0.8, "medium": 0.18, "large": 0.02}
"""Of the versions that come with changes."""


class Tree:
    """What the portal holds, and how it changes.

    Args:
        share: of the files that never change, to make no more than these.
    """

    def __init__(self, namespace: Namespace, seed: int, share: float = 1.0) -> None:
        self._namespace = namespace
        self._chance = random.Random(seed)
        self._keys = {kind: keys(kind) for kind in KINDS}
        self.changes = 0
        self._names = 0
        with namespace.batch():
            stable = namespace.create_folder(STABLE)
            for kind, count in FILES.items():
                directory = namespace.mkdir(stable, kind)
                for number in range(math.ceil(count * share)):
                    self._create(directory, f"{number}", kind)
            self._root = namespace.create_folder(CHANGING)
            self._directories = [self._root]
            self._files: list[Item] = []
            while len(self._directories) < DIRECTORIES:
                self._make_directory()
            while len(self._files) < CHANGING_FILES:
                self._add()

    def change(self) -> None:
        """Something happens to the files that change."""
        self.changes += 1
        happening: Callable[[], None] = self._chance.choices(
            [self._add, self._overwrite, self._rename, self._delete, self._replace_directory], [4, 6, 4, 4, 1]
        )[0]
        if len(self._files) < CHANGING_FILES // 2:
            happening = self._add
        elif len(self._files) > CHANGING_FILES:
            happening = self._delete
        happening()

    def expected(self) -> dict[str, tuple[int, int]]:
        """Size and modification time of each file, by its path below the mount."""
        with self._namespace.lock:
            return {
                item.path: (item.file.size, item.mtime_ns)
                for folder in self._namespace.folders
                for item in folder.root.subtree()
                if not item.is_dir
            }

    def _add(self) -> None:
        kind = self._chance.choices(list(SHARES), list(SHARES.values()))[0]
        self._files.append(self._create(self._chance.choice(self._directories), self._name(), kind))

    def _overwrite(self) -> None:
        item = self._chance.choice(self._files)
        before, version = item.file.content, self._version(self._chance.choices(list(SHARES), [8, 1, 0])[0])
        self._namespace.write(item, version, mtime_ns=version.mtime_ns, encoding=version.encoding)
        if self._chance.random() < 0.5 and isinstance(before, Version):
            before.drop()

    def _rename(self) -> None:
        item = self._chance.choice(self._files)
        self._namespace.move(item, self._chance.choice(self._directories), self._name())

    def _delete(self) -> None:
        item = self._files.pop(self._chance.randrange(len(self._files)))
        self._namespace.delete(item)

    def _replace_directory(self) -> None:
        """One goes with all that is in it, and another one comes."""
        gone = self._chance.choice(self._directories[1:])
        lost = set(map(id, gone.subtree()))
        self._namespace.delete(gone)
        self._files = [item for item in self._files if id(item) not in lost]
        self._directories = [item for item in self._directories if id(item) not in lost]
        while len(self._directories) < DIRECTORIES:
            self._make_directory()

    def _make_directory(self) -> None:
        parent = self._chance.choice(self._directories)
        self._directories.append(self._namespace.mkdir(parent, self._name()))

    def _create(self, parent: Item, name: str, kind: str) -> Item:
        version = self._version(kind)
        return self._namespace.create(parent, name, version, mtime_ns=version.mtime_ns, encoding=version.encoding)

    def _version(self, kind: str) -> Version:
        return Version(next(self._keys[kind]))

    def _name(self) -> str:
        self._names += 1
        return f"{self._names}"
