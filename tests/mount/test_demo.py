"""`cterafs demo`, as somebody who tries it runs it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from real_mount import CTERAFS, DEADLINE


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source" / "Folder"
    folder.mkdir(parents=True)
    (folder / "file").write_text("content")
    (tmp_path / "mnt").mkdir()
    (tmp_path / "tmp").mkdir()
    return folder.parent


@pytest.fixture
def environment(tmp_path: Path) -> Mapping[str, str]:
    return {**os.environ, "TMPDIR": str(tmp_path / "tmp")}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_mounts_and_leaves_nothing_behind(source: Path, environment: Mapping[str, str], number: int) -> None:
    mountpoint = source.parent / "mnt"
    command = [*CTERAFS, "demo", "--source", str(source), str(mountpoint)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True) as demo:
        assert demo.stdout is not None
        assert f"serves {source}" in demo.stdout.readline()
        assert str(mountpoint) in demo.stdout.readline()
        assert (mountpoint / "Folder/file").read_text() == "content"
        demo.send_signal(number)
        assert demo.wait(DEADLINE) == 0
    assert not os.path.ismount(mountpoint)  # Path.is_mount would follow into a dead one
    assert not list((source.parent / "tmp").iterdir())


def test_the_first_process_of_a_container_runs_it(source: Path, environment: Mapping[str, str]) -> None:
    """The parent of what it starts is then number 1, as it is of every orphan."""
    mountpoint = source.parent / "mnt"
    script = f"""
import os, subprocess, sys, threading
from cterafs.cli import main
assert os.getpid() == 1
def look():
    while not os.path.ismount({str(mountpoint)!r}):
        pass
    print(open({str(mountpoint / "Folder/file")!r}).read(), flush=True)
    subprocess.run(["umount", {str(mountpoint)!r}], check=True)
threading.Thread(target=look, daemon=True).start()
sys.exit(main.main(["demo", "--source", {str(source)!r}, {str(mountpoint)!r}]))
"""
    command = ["unshare", "--fork", "--pid", "--mount-proc", sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, env=environment, text=True, timeout=DEADLINE, check=False)
    assert done.returncode == 0, done.stderr
    assert "content\n" in done.stdout


def test_what_the_portal_refuses_is_told_once(source: Path, environment: Mapping[str, str]) -> None:
    command = [*CTERAFS, "demo", "--source", str(source / "missing")]
    done = subprocess.run(command, capture_output=True, env=environment, text=True, timeout=DEADLINE, check=False)
    assert done.returncode == 2
    assert done.stderr == f"cterafs: --source: {source / 'missing'} is not a directory\n"
