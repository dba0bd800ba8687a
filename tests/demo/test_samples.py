"""The samples are what they say, and the same each time."""

from __future__ import annotations

import csv
import json
import sqlite3
from contextlib import closing
from pathlib import Path

from cterafs.demo.samples import BINARY_SIZE, generate


def contents(root: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(path.relative_to(root)): (path.read_bytes() if path.is_file() else b"", path.stat().st_mtime_ns)
        for path in root.rglob("*")
    }


def test_they_are_the_same_each_time(tmp_path: Path) -> None:
    generate(tmp_path / "one")
    generate(tmp_path / "two")
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_they_can_be_read_by_what_they_are_for(tmp_path: Path) -> None:
    generate(tmp_path)
    tables = tmp_path / "Documents" / "Tables"
    with (tables / "measurements.csv").open(newline="") as file:
        rows = [(int(row["id"]), row["sensor"], float(row["value"])) for row in csv.DictReader(file)]
    records = json.loads((tables / "measurements.json").read_text())
    with closing(sqlite3.connect(tables / "measurements.sqlite")) as database:
        assert database.execute("SELECT * FROM measurement ORDER BY id").fetchall() == rows
    assert [(record["id"], record["sensor"], record["value"]) for record in records] == rows
    assert (tmp_path / "Media" / "gradient.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert (tmp_path / "Media" / "random.bin").stat().st_size == BINARY_SIZE
    assert {path.stat().st_size for path in (tmp_path / "Documents").glob("[eo]*")} == {0, 1}


def test_the_index_of_the_video_is_at_its_end(tmp_path: Path) -> None:
    generate(tmp_path)
    data = (tmp_path / "Media" / "test pattern.mp4").read_bytes()
    assert data.index(b"mdat") < data.index(b"moov")
