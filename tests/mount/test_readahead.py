"""What real programs cost through a mount: bytes that are downloaded for what they read."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from real_mount import Mount

from cterafs.demo.encoder import Codec, Encoding
from cterafs.demo.server import EmbeddedPortal
from cterafs.kernel import mountpoint

MIB = 1 << 20
BLOCK = 4 * MIB
SIZE = 2048 * MIB
PLAIN = Encoding(block_size=BLOCK, codec=Codec.NONE, encrypted=False)


class Video:
    """A film of 2 GiB whose index lies at its end: a clip with a hole in its middle. Of MP4, enough for that."""

    size = SIZE

    def __init__(self, clip: bytes) -> None:
        data = clip.index(b"free")  # an empty box of 8 bytes, left for the larger header that a larger film needs
        assert clip[data + 8 :][:4] == b"mdat"
        index = clip.index(b"moov") - 4
        length = SIZE - (len(clip) - index) - (data - 4)
        self._head = clip[: data - 4] + b"\0\0\0\1mdat" + length.to_bytes(8, "big") + clip[data + 12 : index]
        self._tail = clip[index:]

    def read(self, offset: int, length: int) -> bytes:
        head = self._head[offset : offset + length]
        tail_at = SIZE - len(self._tail)
        tail = self._tail[max(0, offset - tail_at) : max(0, offset + length - tail_at)]
        return head + bytes(length - len(head) - len(tail)) + tail


@pytest.fixture
def film(portal: EmbeddedPortal, mount: Mount, tmp_path: Path) -> Path:
    clip = tmp_path / "clip.mp4"
    video = ["-f", "lavfi", "-i", "testsrc2=duration=20:size=320x240:rate=25"]
    subprocess.run(["ffmpeg", "-loglevel", "error", *video, str(clip)], check=True)
    folder = portal.namespace.create_folder("Folder")
    portal.namespace.create(folder, "film.mp4", Video(clip.read_bytes()), encoding=PLAIN)
    mount.start()
    return mount.path / "Folder/film.mp4"


def test_ffprobe_of_a_long_film_downloads_its_ends_only(film: Path, mount: Mount) -> None:
    command = ["ffprobe", "-v", "error", "-show_entries", "format=duration,size", "-of", "csv=p=0"]
    done = subprocess.run([*command, film], check=True, capture_output=True, text=True)
    assert done.stdout.split() == [f"20.000000,{SIZE}"]
    assert mount.status()["reads"]["downloaded_bytes"] <= 16 * MIB


def test_a_few_bytes_from_many_places_are_not_read_ahead_of(film: Path, mount: Mount) -> None:
    with film.open("rb", buffering=0) as file:
        for number in range(10):
            file.seek(number * number * 17 * MIB)
            assert len(file.read(100)) == 100
    assert mount.status()["reads"]["prefetched_blocks"] == 0


def test_the_kernel_goes_on_reading_ahead_while_many_read(film: Path, mount: Mount) -> None:
    """Otherwise it does not from the ninth request on that is in flight."""
    mounted = mountpoint.mounted_at(mount.path)
    assert mounted is not None
    limits = [int((mounted.connection / name).read_text()) for name in ("max_background", "congestion_threshold")]
    assert limits == [256, 192]
