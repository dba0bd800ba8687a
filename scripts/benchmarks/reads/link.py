"""A slower way to the portal and its store."""

from __future__ import annotations

import json
import subprocess
import sys

from benchmarks.reads.relay import HOST
from benchmarks.reads.setting import Setting


class Link:
    """Leads to the portal and the store, sharing one bandwidth; lists of blocks name this way while it is entered.

    Args:
        bits: per second; 0 for no limit.
        delay: seconds of a round trip.

    Attributes:
        options: what a mount needs so that it goes this way to the portal too.
    """

    def __init__(self, setting: Setting, *, delay: float, bits: float = 0) -> None:
        self._setting = setting
        ports = (setting.portal.port, setting.store.port(tls=False))
        self._command = [sys.executable, "-m", "benchmarks.reads.relay", str(bits), str(delay), *map(str, ports)]

    def __enter__(self) -> Link:
        self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        portal, storage = json.loads(self._process.stdout.readline())
        self.portal_url = f"http://{HOST}:{portal}"
        self.storage_url = self._setting.portal.store.base_url = f"http://{HOST}:{storage}"
        self.options = (f"portal.url={self.portal_url}",)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()
        self._setting.serve(tls=False)
