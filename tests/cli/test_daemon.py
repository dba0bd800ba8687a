"""Going to the background: what the parent returns, and what is left of a child that fails."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

BEGIN = """
import os, signal, sys, time
from pathlib import Path
from cterafs.cli import daemon, logsetup
from cterafs.config import LogConfig
import argparse
from cterafs.cli import main
parent = os.getpid()
logsetup.configure(LogConfig(file=Path(sys.argv[1])))

def serve(ready):
"""
END = """

status = main.run(argparse.Namespace(run=lambda _: daemon.detach(serve), verbose=False))
if os.getpid() == parent:
    print("parent", status, flush=True)
else:
    sys.exit(status)
"""


def detach(log: Path, *body: str) -> subprocess.CompletedProcess[str]:
    """Runs a program that detaches a child with this body."""
    program = BEGIN + "".join(f"    {line}\n" for line in body) + END
    return subprocess.run(
        [sys.executable, "-c", program, str(log)], check=True, capture_output=True, text=True, timeout=30
    )


def wait_for(log: Path, text: str) -> str:
    """The child has let go of its output, so that only its log tells when it ended."""
    deadline = time.monotonic() + 20
    while text not in (written := log.read_text()):
        assert time.monotonic() < deadline, written
    return written


def test_the_parent_returns_the_status_of_a_child_that_is_never_ready(tmp_path: Path) -> None:
    assert detach(tmp_path / "log", "return 7").stdout == "parent 7\n"


def test_the_parent_returns_when_the_child_is_ready(tmp_path: Path) -> None:
    assert detach(tmp_path / "log", "ready()", "return 7").stdout == "parent 0\n"


def test_a_child_that_is_killed_before_it_is_ready_is_told(tmp_path: Path) -> None:
    done = detach(tmp_path / "log", "os.kill(os.getpid(), signal.SIGKILL)")
    assert done.stdout == "parent 5\n"
    assert done.stderr == "cterafs: the process in the background was ended by SIGKILL\n"


def test_what_ends_a_mount_in_the_background_is_in_its_log(tmp_path: Path) -> None:
    done = detach(tmp_path / "log", "ready()", "raise ZeroDivisionError('reason')")
    assert done.stdout == "parent 0\n"
    written = wait_for(tmp_path / "log", "ZeroDivisionError: reason")
    assert "the mount ended: unexpected ZeroDivisionError at <string>" in written


def test_what_prevents_a_mount_is_told_once_and_at_the_terminal(tmp_path: Path) -> None:
    done = detach(tmp_path / "log", "raise OSError(5, 'reason')")
    assert (done.stdout, done.stderr) == ("parent 1\n", "cterafs: reason\n")
    assert (tmp_path / "log").read_text() == ""
