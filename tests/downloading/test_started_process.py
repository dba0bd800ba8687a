"""How the process that downloads is started: from where, and by a system that refuses."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import cterafs

PATIENCE = 60.0

BEGINNING = """
import resource, sys, threading
from pathlib import Path
import trio, trio.testing
from cterafs.downloading.arena import Arena
from cterafs.downloading.messages import Settings
from cterafs.downloading.process import DownloadProcess

settings = Settings("http://127.0.0.1", (), verify_tls=True, ca_file=None, workers=1, timeout=20.0)
process = DownloadProcess(Arena.create(1 << 20), 1 << 20, settings)
"""

READY = """
async def main():
    async with trio.open_nursery() as nursery:
        nursery.start_soon(process.run)
        await process.ready.wait()
        nursery.cancel_scope.cancel()

trio.run(main)
"""

WITHOUT_THREADS = """
async def main():
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    threading.stack_size(1 << 30)
    resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 29), resource.RLIM_INFINITY))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(process.run)
        await trio.testing.wait_all_tasks_blocked()
        assert not process.ready.is_set()
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        await process.ready.wait()
        nursery.cancel_scope.cancel()

trio.run(main)
"""


def run(script: str, directory: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run([sys.executable, "-c", script], cwd=directory, env=environment, timeout=PATIENCE, check=True)


def test_it_runs_the_code_that_the_mount_runs_though_that_is_not_installed(tmp_path: Path) -> None:
    shutil.copytree(Path(cterafs.__file__).parent, tmp_path / "cterafs")
    worker = tmp_path / "cterafs/downloading/worker.py"
    begun = tmp_path / "begun"
    worker.write_text(worker.read_text() + f"\nopen({str(begun)!r}, 'w').close()\n")
    run(BEGINNING + READY, tmp_path)
    assert begun.exists()


def test_it_is_started_once_there_are_threads(tmp_path: Path) -> None:
    (tmp_path / "cterafs").symlink_to(Path(cterafs.__file__).parent)
    run(BEGINNING + WITHOUT_THREADS, tmp_path)


def test_it_imports_nothing_that_only_the_portal_needs() -> None:
    """Which takes longer than all the rest that it imports, and it is waited for."""
    code = "import sys; from cterafs.downloading import worker; print(*sys.modules)"
    imported = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert "cterafs.direct.downloads" in imported
    assert not {"httpx", "cterafs.direct.client", "cterafs.portal"}.intersection(imported)
