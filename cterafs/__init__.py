"""The CTERA Global File System as a mount and as a Python library.

`Portal` lists and follows what exists, `DirectIO` reads it; both run under asyncio and trio. `errors` has every
exception. They are imported upon first use, so that `import cterafs` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cterafs import errors
    from cterafs.direct.client import DirectIO
    from cterafs.model import ByteRange
    from cterafs.portal import EventQueue, Portal

__all__ = ["ByteRange", "DirectIO", "EventQueue", "Portal", "errors"]

__version__ = "0.1.0.dev0"

_HOMES = {
    "ByteRange": "cterafs.model",
    "DirectIO": "cterafs.direct.client",
    "EventQueue": "cterafs.portal",
    "Portal": "cterafs.portal",
}


def __getattr__(name: str) -> object:
    if name == "errors":
        return importlib.import_module("cterafs.errors")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
