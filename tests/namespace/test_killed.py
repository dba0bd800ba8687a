"""A process that dies in the middle: what was committed is there, with the cursor that belongs to it."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cterafs.model import Inode
from cterafs.namespace.store import Store

WRITER = """
import os, signal, sys
from pathlib import Path
from cterafs.model import Cursor, Event
from cterafs.namespace.store import Store
from cterafs.namespace.tree import Tree

pages, moment = int(sys.argv[2]), sys.argv[3]
tree = Tree(Store.open(Path(sys.argv[1])))
tree.prepare([Event(guid="r", name="Docs", is_dir=True)], Cursor("0")).commit()
for number in range(1, pages + 1):
    events = [
        Event(guid=f"{number}.{n}", name=f"{number}.{n}", is_dir=False, parent_guid="r", size=1) for n in range(100)
    ]
    batch = tree.prepare(events, Cursor(str(number)))
    if number == pages and moment == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    batch.commit()
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize(("moment", "complete"), [("before", 2), ("after", 3)])
def test_killed_around_a_commit(tmp_path: Path, moment: str, complete: int) -> None:
    result = subprocess.run([sys.executable, "-c", WRITER, str(tmp_path), "3", moment], check=False)
    assert result.returncode == -signal.SIGKILL
    with Store.open(tmp_path) as store:
        docs = store.resolve("/Docs")
        assert docs is not None
        assert len(store.children(Inode(docs.inode), None, 1000)) == complete * 100
        assert store.counts.files == store.counts.bytes == complete * 100
        assert store.cursor == str(complete)
