from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from played_portal import PlayedPortal, Setting, Watcher
from trio.testing import MockClock

from cterafs.namespace.store import Store
from cterafs.namespace.tree import Tree


@pytest.fixture
def setting(tmp_path: Path, autojump_clock: MockClock) -> Iterator[Setting]:
    # pytest-trio runs a test on this clock only where the test itself asks for it, so all of them do.
    # Work in threads does not count as busy for a jumping clock: it waits this long for it.
    autojump_clock.autojump_threshold = 0.01
    with Store.open(tmp_path) as store, Tree(store) as tree:
        yield Setting(PlayedPortal(), store, tree, Watcher(store))
