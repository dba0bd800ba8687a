"""A few histories of a portal, the same on every run, seen through a real mount; tests/volume runs many without one."""

from __future__ import annotations

import os
import signal
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import rule, run_state_machine_as_test
from portal_history import ACTIONS, PICK, SEED, Action, PortalHistory, Seen
from real_mount import Mount, finish

from cterafs.demo.server import EmbeddedPortal

HISTORIES = 4
STEPS = 8
BATCH = st.lists(ACTIONS, min_size=4, max_size=16)


class MountHistory(PortalHistory):
    """Compares after each batch, while files of any age are held open."""

    def __init__(self) -> None:
        self.portal = EmbeddedPortal()
        self.portal.start()
        self.place = tempfile.TemporaryDirectory()
        self.held: dict[int, bytes] = {}
        super().__init__(self.portal.namespace)
        self.mount = Mount(self.portal, Path(self.place.name))
        self.mount.start()

    def teardown(self) -> None:
        self.end_round()
        try:
            self.let_go()
            finish(self.mount)
        finally:
            self.portal.close()
            self.place.cleanup()

    @rule(batch=BATCH, seed=SEED, hold=PICK, calamity=st.sampled_from(["none", "none", "none", "reset", "kill"]))
    def change(self, batch: list[Action], seed: int, hold: int, calamity: str) -> None:
        self.happen(batch)
        self.tell(seed)
        if calamity == "reset":
            self.reject_the_cursor()
        elif calamity == "kill":
            self.kill()
        self.look()
        self.hold(hold)

    def hold(self, which: int) -> None:
        tree = self.expected()
        if path := self._choose([path for path, seen in tree.items() if seen.file_id in self.contents], which):
            handle = os.open(f"{self.mount.path}{path}", os.O_RDONLY)
            self.held[handle] = self.contents[tree[path].file_id or 0]

    def reject_the_cursor(self) -> None:
        self.list_again()
        self.namespace.tell(self.items[0])  # news, so that whoever waits with the old cursor is no proof
        self.tell(0)

    def kill(self) -> None:
        """In the middle of whatever the mount makes of the news."""
        self.mount.signal(signal.SIGKILL)
        self.let_go()
        self.mount.start()

    def look(self) -> None:
        self.mount.settle()
        assert self.walk(self.mount.path, "") == self.expected()
        for handle, content in self.held.items():
            assert os.pread(handle, 100, 0) == content

    def walk(self, directory: Path, path: str) -> dict[str, Seen]:
        found: dict[str, Seen] = {}
        for entry in sorted(directory.iterdir()):
            seen = _seen(entry)
            if seen.file_id in self.contents:
                assert entry.read_bytes() == self.contents[seen.file_id]
            if seen.is_dir:
                below = self.walk(entry, f"{path}/{entry.name}")
                if not below and self.may_be_seen(seen.guid):
                    continue
                found |= below
            found[f"{path}/{entry.name}"] = seen
        return found

    def let_go(self) -> None:
        while self.held:
            handle, _ = self.held.popitem()
            os.close(handle)


def _seen(path: Path) -> Seen:
    told = {name: os.getxattr(path, name).decode() for name in os.listxattr(path)}
    file_id = told.get("user.ctera.id")
    size = 0 if path.is_dir() else path.stat().st_size
    return Seen(
        guid=told["user.ctera.guid"],
        is_dir=path.is_dir(),
        size=size,
        file_id=int(file_id) if file_id else None,
        gvsn=told["user.ctera.gvsn"],
    )


def test_a_mount_shows_what_a_portal_has_been_through() -> None:
    run_state_machine_as_test(
        MountHistory,
        settings=settings(
            max_examples=HISTORIES,
            stateful_step_count=STEPS,
            derandomize=True,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )
