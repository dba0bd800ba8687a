"""Ordinary tools on a real mount, their results compared with the same tools on the source."""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pandas as pd
import pytest
from real_mount import Mount, finish

from cterafs.demo.encoder import Codec, Encoding
from cterafs.demo.samples import generate
from cterafs.demo.server import EmbeddedPortal
from cterafs.demo.source import Source

BLOCK = 100_003  # odd, so that blocks and pages never meet


def make_files(root: Path) -> None:
    """The demo's samples, and what the tools need besides."""
    generate(root)
    data = root / "Data"
    data.mkdir()
    table = pd.DataFrame({"number": range(200_000), "text": [f"row {number}" for number in range(200_000)]})
    table.to_parquet(data / "table.parquet", row_group_size=20_000)
    table.to_csv(data / "table.csv", index=False)
    with sqlite3.connect(data / "table.db") as database:
        table.to_sql("rows", database, index=False)
    database.close()
    (data / "random.bin").write_bytes(os.urandom(5 * BLOCK + 17))
    video = ["-f", "lavfi", "-i", "testsrc2=duration=20:size=320x240:rate=25", "-f", "lavfi", "-i", "sine=duration=20"]
    subprocess.run(["ffmpeg", "-loglevel", "error", *video, "-shortest", str(data / "clip.mp4")], check=True)
    for number, file in enumerate(sorted(root.rglob("*"))):  # the portal tells times to the microsecond
        os.utime(file, ns=(0, 1_700_000_000_123_456_000 + number * 1000))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("source")
    make_files(root)
    return root


@pytest.fixture(scope="module")
def mounted(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The source, mounted."""
    with EmbeddedPortal(encoding=Encoding(block_size=BLOCK, codec=Codec.SNAPPY)) as portal:
        follower = Source(source, portal.namespace, portal.accounts.owner.uid)
        follower.start()
        mount = Mount(portal, tmp_path_factory.mktemp("mount"))
        mount.start()
        try:
            yield mount.path
            assert mount.complaints() == []
        finally:
            finish(mount)
            follower.stop()


def output(*command: str | Path, cwd: Path) -> str:
    """What a tool prints, run in a directory; it must succeed."""
    done = subprocess.run(command, cwd=cwd, check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def same(command: list[str], source: Path, mounted: Path) -> str:
    """The tool prints the same in both places."""
    expected, seen = output(*command, cwd=source), output(*command, cwd=mounted)
    assert seen == expected
    return seen


def test_ls_lists_everything(source: Path, mounted: Path) -> None:
    assert len(same(["ls", "-R"], source, mounted).splitlines()) > 10
    assert "-r--r--r--" in output("ls", "-lR", cwd=mounted)


def test_find_tells_the_same_types_sizes_and_times(source: Path, mounted: Path) -> None:
    for kind, fields in (("f", "%P %s %T@ %y\\n"), ("d", "%P %y\\n")):
        command = ["find", ".", "-mindepth", "1", "-type", kind, "-printf", fields]
        expected, seen = (sorted(output(*command, cwd=place).splitlines()) for place in (source, mounted))
        assert seen == expected
        assert seen


def test_cp_and_diff(source: Path, mounted: Path, tmp_path: Path) -> None:
    output("cp", "-r", str(mounted), str(tmp_path / "copy"), cwd=tmp_path)
    output("diff", "-r", str(source), str(tmp_path / "copy"), cwd=tmp_path)


def test_diff_in_place(source: Path, mounted: Path, tmp_path: Path) -> None:
    output("diff", "-r", str(source), str(mounted), cwd=tmp_path)


def test_sha256sum(source: Path, mounted: Path) -> None:
    same(["sh", "-c", "find . -type f -print0 | sort -z | xargs -0 sha256sum"], source, mounted)


def test_rsync_by_checksum_finds_nothing_to_do(source: Path, mounted: Path, tmp_path: Path) -> None:
    command = ["rsync", "-rtc", "--itemize-changes", "--dry-run", f"{mounted}/", f"{source}/"]
    changes = [line for line in output(*command, cwd=tmp_path).splitlines() if not line.startswith(".d")]
    assert changes == []


def test_rsync_copies(source: Path, mounted: Path, tmp_path: Path) -> None:
    output("rsync", "-rt", f"{mounted}/", str(tmp_path / "copy"), cwd=tmp_path)
    output("diff", "-r", str(source), str(tmp_path / "copy"), cwd=tmp_path)


def test_tar(source: Path, mounted: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    output("tar", "cf", str(tmp_path / "all.tar"), "-C", str(mounted), ".", cwd=tmp_path)
    output("tar", "xf", str(tmp_path / "all.tar"), "-C", str(tmp_path / "out"), cwd=tmp_path)
    output("chmod", "-R", "u+w", str(tmp_path / "out"), cwd=tmp_path)
    output("diff", "-r", str(source), str(tmp_path / "out"), cwd=tmp_path)


def test_grep(source: Path, mounted: Path) -> None:
    assert same(["sh", "-c", "grep -rc 'row 19999' Data | sort"], source, mounted)


@pytest.mark.parametrize(("size", "skip"), [(1, 0), (1, 100_003), (7, 12_345), (4096, 3), (100_003, 4), (33_333, 14)])
def test_dd_at_odd_offsets(source: Path, mounted: Path, size: int, skip: int) -> None:
    command = ["sh", "-c", f"dd if=Data/random.bin bs={size} skip={skip} count=3 status=none | sha256sum"]
    same(command, source, mounted)


@pytest.mark.parametrize("size", [0, 1, 17, 18, 100_000])
def test_tail(source: Path, mounted: Path, size: int) -> None:
    same(["sh", "-c", f"tail -c {size} Data/random.bin | sha256sum"], source, mounted)


def test_direct_io(source: Path, mounted: Path) -> None:
    seen = output("sh", "-c", "dd if=Data/random.bin bs=65536 iflag=direct status=none | sha256sum", cwd=mounted)
    assert seen.split()[0] == hashlib.sha256((source / "Data/random.bin").read_bytes()).hexdigest()


MAPPED = """
import hashlib, mmap, sys
with open(sys.argv[1], "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
    assert mapped[-1:] == mapped[len(mapped) - 1:]
    print(hashlib.sha256(mapped[300_000:300_010]).hexdigest(), hashlib.sha256(mapped).hexdigest())
"""


def test_mmap(source: Path, mounted: Path) -> None:
    same([sys.executable, "-c", MAPPED, "Data/random.bin"], source, mounted)


def test_sqlite(source: Path, mounted: Path) -> None:
    query = "SELECT count(*), sum(number), max(text) FROM rows; PRAGMA integrity_check"
    same(["sqlite3", "file:Data/table.db?immutable=1", query], source, mounted)
    same(["sqlite3", "-readonly", "Data/table.db", query], source, mounted)


def test_duckdb(source: Path, mounted: Path) -> None:
    for name in ("table.parquet", "table.csv"):
        query = "SELECT count(*), sum(number), max(text) FROM '{}' WHERE number % 7 = 3"
        expected, seen = (duckdb.sql(query.format(place / "Data" / name)).fetchall() for place in (source, mounted))
        assert seen == expected


def test_pandas(source: Path, mounted: Path) -> None:
    pd.testing.assert_frame_equal(
        pd.read_parquet(mounted / "Data/table.parquet", columns=["number"]),
        pd.read_parquet(source / "Data/table.parquet", columns=["number"]),
    )
    pd.testing.assert_frame_equal(
        pd.read_csv(mounted / "Data/table.csv"),
        pd.read_csv(source / "Data/table.csv"),
    )


def test_ffprobe(source: Path, mounted: Path) -> None:
    command = ["ffprobe", "-v", "error", "-show_entries", "format=duration,size:stream=codec_name", "Data/clip.mp4"]
    assert "duration=20" in same(command, source, mounted)


def test_ffmpeg_transcodes_and_seeks(source: Path, mounted: Path) -> None:
    """Frames are compared by checksum, at the start and after seeks to the end and back to the middle."""
    for seek in ("0", "18", "9.5"):
        command = ["ffmpeg", "-v", "error", "-ss", seek, "-i", "Data/clip.mp4", "-frames:v", "5", "-f", "framemd5", "-"]
        assert same(command, source, mounted).count("\n") > 5
    command = ["ffmpeg", "-v", "error", "-i", "Data/clip.mp4", "-vf", "scale=64:48", "-f", "framemd5", "-"]
    assert same(command, source, mounted).count("0, ") >= 500


def test_du_and_df_are_honest(source: Path, mounted: Path) -> None:
    same(["du", "-sb", "Data/random.bin"], source, mounted)
    usage = shutil.disk_usage(mounted)
    assert usage.free == 0
    assert usage.used >= sum(
        file.stat().st_size for file in source.rglob("*") if file.is_file() and file.parent != source
    )


def test_extended_attributes(mounted: Path) -> None:
    file = mounted / "Data/random.bin"
    names = os.listxattr(file)
    assert set(names) >= {"user.ctera.id", "user.ctera.guid", "user.ctera.folder_id", "user.ctera.gvsn"}
    assert os.getxattr(file, "user.ctera.name") == b"random.bin"
    assert int(os.getxattr(file, "user.ctera.id")) > 2**32
    with pytest.raises(OSError, match="No data available"):
        os.getxattr(file, "user.ctera.nothing")


@pytest.mark.parametrize(
    "command",
    [
        "touch Data/new",
        "touch Data/random.bin",
        "echo x >> Data/random.bin",
        ": > Data/random.bin",
        "mkdir Data/new",
        "rm -f Data/random.bin",
        "rmdir Data",
        "mv Data/random.bin Data/other",
        "ln Data/random.bin Data/other",
        "ln -s random.bin Data/other",
        "chmod 600 Data/random.bin",
        "chown 1 Data/random.bin",
        "truncate -s 0 Data/random.bin",
        "mkfifo Data/new",
        "setfattr -n user.x -v y Data/random.bin",
        "setfattr -x user.ctera.name Data/random.bin",
    ],
)
def test_every_write_is_refused_as_read_only(mounted: Path, command: str) -> None:
    done = subprocess.run(["sh", "-c", command], cwd=mounted, check=False, capture_output=True, text=True)
    assert done.returncode != 0
    assert "Read-only file system" in done.stderr
