"""The line that tells how far an import is, on a terminal."""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cterafs.cli.failures import INTERRUPTED


@pytest.fixture
def silent_portal() -> Iterator[str]:
    """The address of a portal that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


@pytest.mark.parametrize("flags", [[], ["-f"]])
def test_an_interrupted_import_leaves_the_line(silent_portal: str, tmp_path: Path, flags: list[str]) -> None:
    environment = {
        "HOME": str(tmp_path),
        "PATH": os.environ["PATH"],
        "CTERAFS_CONFIG": os.devnull,
        "CTERAFS_PORTAL_URL": silent_portal,
        "CTERAFS_PORTAL_TOKEN": "token",
        "CTERAFS_DIRECT_BEARER": "bearer",
        "CTERAFS_LOG_FILE": str(tmp_path / "log"),
    }
    terminal, its_end = pty.openpty()
    command = [sys.executable, "-m", "cterafs.cli.main", "mount", *flags, str(tmp_path)]
    process = subprocess.Popen(command, env=environment, stderr=its_end)
    os.close(its_end)
    shown = b""
    while b"importing the namespace" not in shown:
        shown += os.read(terminal, 4096)
    process.send_signal(signal.SIGINT)
    with contextlib.suppress(OSError):  # EIO: nobody has the other end any more
        while more := os.read(terminal, 4096):
            shown += more
    os.close(terminal)
    assert process.wait(30) == INTERRUPTED
    assert shown.endswith(b"\r\n")
