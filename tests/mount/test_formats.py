"""Every way to store a file, read through the mount byte for byte."""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from real_mount import Mount, finish

from cterafs.demo.encoder import Codec, Encoding
from cterafs.demo.server import EmbeddedPortal

KIB, MIB = 1 << 10, 1 << 20

SHAPES = {
    "256KiB": Encoding(block_size=256 * KIB),
    "4MiB": Encoding(block_size=4 * MIB),
    "odd": Encoding(block_size=77_777),
    "variable": Encoding(block_size=150_000, variable=True),
}
ENCODINGS = {
    f"{shape}-{codec.value}-{'encrypted' if encrypted else 'plain'}": Encoding(
        block_size=of.block_size, variable=of.variable, codec=codec, encrypted=encrypted
    )
    for (shape, of), codec, encrypted in itertools.product(SHAPES.items(), Codec, (True, False))
}
ENCODINGS["azure"] = Encoding(block_size=256 * KIB, codec=Codec.SNAPPY, md5_prefix=True)


def content(seed: str, size: int) -> bytes:
    """Bytes that compress a little, the same for the same seed."""
    source = random.Random(seed)
    return b"".join(source.choice((b"zeros\0" * 100, source.randbytes(600))) for _ in range(size // 600 + 1))[:size]


def sizes(encoding: Encoding) -> list[int]:
    block = encoding.block_size
    return [0, 1, block, block + 1, 2 * block + block // 3]


@pytest.fixture(scope="module")
def mounted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mount]:
    """One cloud folder with a directory for each encoding."""
    with EmbeddedPortal() as portal:
        folder = portal.namespace.create_folder("Formats")
        for name, encoding in ENCODINGS.items():
            directory = portal.namespace.mkdir(folder, name)
            for size in sizes(encoding):
                data = content(f"{name} {size}", size)
                portal.namespace.create(directory, f"{size}", data, encoding=encoding)
        mount = Mount(portal, tmp_path_factory.mktemp("formats"))
        mount.start()
        try:
            yield mount
            assert mount.complaints() == []
        finally:
            finish(mount)


@pytest.mark.parametrize("name", ENCODINGS)
def test_every_byte_is_right(mounted: Mount, name: str) -> None:
    for size in sizes(ENCODINGS[name]):
        seen = (mounted.path / "Formats" / name / f"{size}").read_bytes()
        assert len(seen) == size
        assert seen == content(f"{name} {size}", size)


@settings(max_examples=300)
@given(data=st.data())
def test_random_reads_are_slices(mounted: Mount, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(["odd-snappy-encrypted", "variable-gzip-plain", "256KiB-none-encrypted", "azure"]))
    size = data.draw(st.sampled_from(sizes(ENCODINGS[name])))
    expected = content(f"{name} {size}", size)
    file = os.open(mounted.path / "Formats" / name / f"{size}", os.O_RDONLY)
    try:
        for _ in range(data.draw(st.integers(1, 5))):
            offset, length = data.draw(st.integers(0, size + 10)), data.draw(st.integers(1, 2 * MIB))
            assert os.pread(file, length, offset) == expected[offset : offset + length]
    finally:
        os.close(file)
