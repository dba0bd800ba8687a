"""The processes that read."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

from soaking.ledger import Ledger
from soaking.reader import Incident

PATIENCE = 60.0
"""Seconds for a reader to end, beyond the deadline of a read."""


class Crew:
    """Readers of a mount, each of which is replaced if it dies.

    Args:
        deadline: seconds that one read may take.
    """

    def __init__(self, root: Path, ledger: Ledger, deadline: float) -> None:
        self._root = root
        self._ledger = ledger
        self._deadline = deadline
        self._ending = threading.Event()
        self._members: list[tuple[subprocess.Popen[str], threading.Thread]] = []

    def start(self, count: int, seed: int) -> None:
        for number in range(count):
            self._start("mixed", seed + number)

    def read_all(self) -> None:
        """Each file from end to end, in every way; returns when that is done."""
        self._start("all", 0)
        self._join(self._members[-1], None)

    def stop(self) -> None:
        for process, _ in self._members:
            assert process.stdin is not None
            process.stdin.close()
        for member in self._members:
            self._join(member, self._deadline + PATIENCE)

    def _start(self, mode: str, seed: int) -> None:
        command = [sys.executable, "-m", "soaking.reader", mode, str(self._root), str(seed), str(self._deadline)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        thread = threading.Thread(target=self._listen, args=[process], daemon=True)
        thread.start()
        self._members.append((process, thread))

    def _listen(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            told = json.loads(line)
            if "incident" in told:
                self._ledger.judge(Incident(**told["incident"]))
            else:
                self._ledger.count(told["done"], told["bytes"])

    def _join(self, member: tuple[subprocess.Popen[str], threading.Thread], patience: float | None) -> None:
        process, thread = member
        try:
            status = process.wait(patience)
        except subprocess.TimeoutExpired:
            process.kill()
            self._ledger.complain(f"a reader hung for {patience} s")
        else:
            if status:
                self._ledger.complain(f"a reader ended with {status}")
        thread.join(PATIENCE)
