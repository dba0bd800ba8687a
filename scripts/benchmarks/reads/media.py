"""A player's first look at a large video whose index is at its end."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

from benchmarks.machine import MIB
from benchmarks.reads.setting import Setting, encoding

LARGEST = 2048 * MIB
"""And twice as large as other large files, where those are small."""

WANTED = 16
"""MiB that may be downloaded to know its streams and its length."""


class Padded:
    """A video with zeros between its frames and its index."""

    def __init__(self, video: bytes, size: int) -> None:
        start, stop = _media(video)
        padding = size - len(video)
        grown = (stop - start + padding).to_bytes(4, "big")  # a box begins with its length
        self._head = video[:start] + grown + video[start + 4 : stop]
        self._tail = video[stop:]
        self.size = size

    def read(self, offset: int, length: int) -> bytes:
        end = min(offset + length, self.size)
        middle = self.size - len(self._tail)
        head = self._head[offset:end]
        zeros = bytes(max(0, min(end, middle) - max(offset, len(self._head))))
        return head + zeros + self._tail[max(0, offset - middle) : max(0, end - middle)]


def run(setting: Setting) -> None:
    setting.serve(tls=False)
    size = min(LARGEST, 2 * setting.size)
    video = _make(setting.scratch / "short.mp4")
    (item,) = setting.create_all(["video.mp4"], lambda: Padded(video, size), encoding(4 * MIB))
    sent, delays = [], []
    with setting.mount() as mount:
        for _ in range(min(setting.rounds, 3)):
            path = setting.restart(mount, item)
            setting.store.sent()
            began = time.perf_counter()
            found = subprocess.run(
                ["ffprobe", "-v", "error", "-show_entries", "stream=codec_name", "-of", "csv=p=0", path],
                stdout=subprocess.PIPE,
                check=True,
            )
            delays.append(time.perf_counter() - began)
            if not found.stdout.strip():
                raise RuntimeError("ffprobe finds no stream in the video")
            mount.stop()
            sent.append(setting.store.sent().bytes / MIB)
    setting.report.add(f"ffprobe of a {size // MIB:,} MiB video: sent", "MiB", sent, at_most=WANTED)
    setting.report.add(f"ffprobe of a {size // MIB:,} MiB video", "s", delays)


def _make(path: Path) -> bytes:
    """Ten seconds of video, with the index where ffmpeg puts it: at the end."""
    source = "testsrc=duration=10:size=1280x720:rate=25"
    subprocess.run(["ffmpeg", "-v", "error", "-f", "lavfi", "-i", source, "-pix_fmt", "yuv420p", path], check=True)
    return path.read_bytes()


def _media(video: bytes) -> tuple[int, int]:
    """Where the box with the frames begins and ends; the index must be behind it."""
    position = 0
    while position < len(video):
        length, kind = int.from_bytes(video[position : position + 4], "big"), video[position + 4 : position + 8]
        if kind == b"mdat":
            return position, position + length
        position += length
    raise ValueError("no media data")
