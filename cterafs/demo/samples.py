"""A directory to try a mount on: the same bytes on every machine, but for the video, which is ffmpeg's."""

from __future__ import annotations

import csv
import io
import json
import os
import random
import shutil
import sqlite3
import struct
import subprocess
import zlib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

BINARY_SIZE = 20 << 20
"""Several blocks of any usual size."""

DEPTH = 12
"""Directories inside each other."""

TIMESTAMP = 1_700_000_000
"""The modification time of everything, in seconds since 1970: in November 2023."""

VIDEO_SECONDS = 10


def generate(directory: Path) -> None:
    """Fill `directory`, which is made if need be, with two cloud folders.

    Raises:
        OSError: it cannot be written, or the files are there already.
    """
    directory.mkdir(parents=True, exist_ok=True)
    documents, media = directory / "Documents", directory / "Media"
    documents.mkdir()
    media.mkdir()
    contents: dict[Path, Callable[[], bytes]] = {
        documents / "Read me.txt": _text,
        documents / "empty": lambda: b"",
        documents / "one byte": lambda: b"1",
        documents / "Tables" / "measurements.csv": _table,
        documents / "Tables" / "measurements.json": _json,
        documents / "Názvy" / "žluťoučký kůň.txt": "Příliš žluťoučký kůň.\n".encode,
        documents / "Názvy" / "日本語のファイル名.txt": "こんにちは\n".encode,
        documents / "Názvy" / "🗻 mountain.txt": lambda: b"a mountain\n",
        documents / "Names" / "spaces and 'quotes' & more.txt": lambda: b"a name for shells to stumble over\n",
        documents.joinpath(*(f"level {level}" for level in range(1, DEPTH + 1)), "deep.txt"): lambda: b"deep down\n",
        media / "random.bin": lambda: random.Random(1).randbytes(BINARY_SIZE),  # noqa: S311  # to be the same each time
        media / "gradient.png": _picture,
    }
    for path, content in contents.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content())
    _database(documents / "Tables" / "measurements.sqlite")
    if ffmpeg := shutil.which("ffmpeg"):
        _video(ffmpeg, media / "test pattern.mp4")
    for path in sorted(directory.rglob("*"), reverse=True):
        os.utime(path, (TIMESTAMP, TIMESTAMP))


def _text() -> bytes:
    lines = [f"Line {number}: a file to read, to search and to seek in." for number in range(1, 2001)]
    return ("\n".join(lines) + "\n").encode()


def _rows() -> list[tuple[int, str, float]]:
    values = random.Random(2)  # noqa: S311
    return [(number, f"sensor-{number % 7}", round(values.gauss(20, 5), 3)) for number in range(10_000)]


def _table() -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("id", "sensor", "value"))
    writer.writerows(_rows())
    return text.getvalue().encode()


def _json() -> bytes:
    return json.dumps([{"id": row[0], "sensor": row[1], "value": row[2]} for row in _rows()], indent=1).encode()


def _database(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("CREATE TABLE measurement (id INTEGER PRIMARY KEY, sensor TEXT NOT NULL, value REAL NOT NULL)")
        database.executemany("INSERT INTO measurement VALUES (?, ?, ?)", _rows())
        database.execute("CREATE INDEX measurement_sensor ON measurement (sensor)")


def _picture(width: int = 320, height: int = 200) -> bytes:
    """A PNG, written by hand: no image library is needed for a gradient."""
    rows = b"".join(
        b"\0" + b"".join(bytes((x * 255 // width, y * 255 // height, 128)) for x in range(width)) for y in range(height)
    )
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)  # 8 bits per channel, RGB, not interlaced
    return b"\x89PNG\r\n\x1a\n" + _png(b"IHDR", header) + _png(b"IDAT", zlib.compress(rows)) + _png(b"IEND", b"")


def _png(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _video(ffmpeg: str, path: Path) -> None:
    """A test pattern with a tone. Its index (moov) is at the end, so that players have to seek."""
    pattern = f"testsrc=duration={VIDEO_SECONDS}:size=640x360:rate=25"
    tone = f"sine=frequency=440:duration={VIDEO_SECONDS}"
    command = [ffmpeg, "-nostdin", "-loglevel", "error", "-f", "lavfi", "-i", pattern, "-f", "lavfi", "-i", tone]
    # mpeg4 and aac are built into every ffmpeg; bitexact leaves its version and the date out.
    command += ["-c:v", "mpeg4", "-q:v", "5", "-c:a", "aac", "-flags", "+bitexact", "-fflags", "+bitexact", str(path)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
