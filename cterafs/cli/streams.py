"""The standard streams, which whoever starts us may have closed."""

from __future__ import annotations

import os
import sys


def complete_streams() -> None:
    """Opens those of the three standard streams that are closed.

    Otherwise the next file to be opened would be taken for one, and messages be written into it. Reading from such a
    stream finds the end; writing to such a standard output fails, so that what is lost does not look done; messages to
    such a standard error go nowhere.
    """
    for number, mode in enumerate((os.O_RDONLY, os.O_RDONLY, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, mode), True)  # it gets this very number, the lowest that is free
    sys.stdin = sys.stdin or open(0, closefd=False)  # noqa: SIM115  # they stay as long as we do
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False, errors="backslashreplace")  # noqa: SIM115
