"""`cterafs status` of a mount whose path or process has gone."""

from __future__ import annotations

import json
import signal

from real_mount import Mount

from cterafs.demo.server import EmbeddedPortal


def test_a_mount_that_was_taken_away_while_in_use(mount: Mount, portal: EmbeddedPortal) -> None:
    portal.namespace.create(portal.namespace.create_folder("Folder"), "file", b"content")
    mount.start()
    with (mount.path / "Folder/file").open("rb"):
        mount.run("umount", "--lazy", str(mount.path))
        assert "not mounted here any more, and ends when its last user has gone" in mount.status()["reason"]


def test_a_mount_whose_process_was_killed(mount: Mount) -> None:
    mount.start()
    mount.signal(signal.SIGKILL)
    done = mount.run("status", "--json", str(mount.path), check=False)
    assert done.returncode == 1
    assert json.loads(done.stdout) == {
        "mountpoint": str(mount.path),
        "pid": mount.pid,
        "state": "dead",
        "reason": f"no process answers for it; unmount it with: cterafs umount {mount.path}",
    }
    mount.stop()
