"""A gibibyte through the mount: identical, and in bounded memory."""

from __future__ import annotations

import hashlib
import random
import subprocess
from pathlib import Path

from real_mount import Mount

from cterafs.demo.encoder import Codec, Encoding
from cterafs.demo.server import EmbeddedPortal

MIB = 1 << 20
SIZE = 1024 * MIB
MEMORY = 64 * MIB
BESIDES = 150 * MIB  # what blocks need while they are decoded, and what the allocator keeps of it


class Pattern:
    """Content that is made as it is read: one random mebibyte, with each mebibyte's number in front."""

    size = SIZE

    def __init__(self) -> None:
        self._unit = random.Random(11).randbytes(MIB)

    def read(self, offset: int, length: int) -> bytes:
        first, last = offset // MIB, (offset + length - 1) // MIB
        data = b"".join(number.to_bytes(8, "big") + self._unit[8:] for number in range(first, last + 1))
        start = offset - first * MIB
        return data[start : start + length]


def test_a_gibibyte_is_copied_identically_in_bounded_memory(portal: EmbeddedPortal, mount: Mount) -> None:
    pattern = Pattern()
    folder = portal.namespace.create_folder("Folder")
    encoding = Encoding(block_size=4 * MIB, codec=Codec.NONE)
    portal.namespace.create(folder, "large", pattern, encoding=encoding)
    expected = hashlib.sha256()
    for offset in range(0, SIZE, MIB):
        expected.update(pattern.read(offset, MIB))
    mount.configure(cache_memory="64MiB")
    mount.start()
    before = resident(mount.pid)
    copied = subprocess.run(["sha256sum", mount.path / "Folder/large"], check=True, capture_output=True, text=True)
    assert copied.stdout.split()[0] == expected.hexdigest()
    status = mount.status()
    assert status["reads"]["bytes"] >= SIZE
    assert status["cache"]["memory"]["used"] <= MEMORY
    assert resident(mount.pid, "VmHWM") <= before + MEMORY + BESIDES


def resident(pid: int, field: str = "VmRSS") -> int:
    """Bytes of memory in use; VmHWM: at most, so far (proc_pid_status(5), in kB)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"no {field}")
