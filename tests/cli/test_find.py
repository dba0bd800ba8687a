"""`cterafs find`, on an index that no mount uses."""

import json
import os
import pty
import subprocess
import sys

import pytest

from cterafs import config
from cterafs.cli import main
from cterafs.cli.timestamps import iso_time
from cterafs.model import Event
from cterafs.namespace.store import Store
from cterafs.namespace.tree import Tree

SECOND = 1_000_000_000


def file(guid, name, parent, **fields):
    return Event(guid=guid, name=name, is_dir=False, parent_guid=parent, folder_id=7, **fields)


EVENTS = [
    Event(guid="root", name="Docs", is_dir=True, folder_id=7),
    Event(guid="sub", name="sub", is_dir=True, folder_id=7, parent_guid="root", mtime_ns=5 * SECOND),
    file("a", "a.txt", "root", size=1, mtime_ns=1_700_000_000 * SECOND + 5, file_id=11, gvsn="3"),
    file("b", "b.pdf", "sub", size=1 << 20, mtime_ns=1_600_000_000 * SECOND, file_id=12),
    file("c", "c.pdf", "sub", size=(1 << 20) + 1, mtime_ns=1_500_000_000 * SECOND, acl="D:"),
    file("d", "two\nlines\x1b[2J", "sub", size=0),
    file("e", "\udcff", "sub", size=0),
]


@pytest.fixture(autouse=True)
def environment(tmp_path, monkeypatch):
    """The configuration that leads to an index of EVENTS."""
    for name in [name for name in os.environ if name.startswith("CTERAFS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.setenv("CTERAFS_CONFIG", os.devnull)
    monkeypatch.setenv("CTERAFS_PORTAL_URL", "https://portal.example")
    directory = config.state_directory(config.load(None, os.environ))
    directory.mkdir(parents=True)
    with Store.open(directory) as store, Tree(store) as tree:
        tree.prepare(EVENTS).commit()


@pytest.fixture
def find(capfdbinary):
    def find(*arguments):
        status = main.main(["find", *arguments])
        out, err = capfdbinary.readouterr()
        assert (status, err) == (0, b"")
        return sorted(out.split(b"\0" if "-0" in arguments else b"\n")[:-1])

    return find


@pytest.fixture
def fails(capfdbinary):
    def fails(*arguments):
        try:
            status = main.main(["find", *arguments])
        except SystemExit as error:  # as argparse ends
            status = error.code
        out, err = capfdbinary.readouterr()
        assert out == b""
        assert err.count(b"\n") == 1
        return status, err.decode()

    return fails


def test_everything_by_default(find):
    assert find("-0") == sorted(
        [
            b"/Docs",
            b"/Docs/a.txt",
            b"/Docs/sub",
            b"/Docs/sub/b.pdf",
            b"/Docs/sub/c.pdf",
            "/Docs/sub/two␛0Alines␛1B[2J".encode(),
            "/Docs/sub/␛uDCFF".encode(),
        ]
    )


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["--name", "*.pdf"], {"b.pdf", "c.pdf"}),
        (["--name", "[!b].pdf"], {"c.pdf"}),
        (["--type", "d"], {"Docs", "sub"}),
        (["--name", "s*", "--type", "f"], set()),
        (["--size", "1M"], {"b.pdf"}),
        (["--size", "+1M"], {"c.pdf"}),
        (["--size", "-1M", "--name", "a*"], {"a.txt"}),
        (["--size=-2", "--name", "a*"], {"a.txt"}),
        (["--size", "1c"], {"a.txt"}),
        (["--newer", "2023-11-14T22:13:20"], {"a.txt"}),
        (["--newer", "2023-11-14T22:13:20.000001"], set()),
        (["--newer", "2020-09-13T14:26:39+02:00"], {"a.txt", "b.pdf"}),
        (["--newer", "2017-01-01", "--where", "size > 1"], {"b.pdf", "c.pdf"}),
        (["--where", "acl IS NOT NULL OR id = 11"], {"a.txt", "c.pdf"}),
        (["/Docs/sub", "--name", "*.pdf"], {"b.pdf", "c.pdf"}),
        (["Docs/sub/b.pdf"], {"b.pdf"}),
        (["/Docs/sub/", "--type", "d"], {"sub"}),
    ],
)
def test_conditions(find, arguments, names):
    assert {path.rpartition(b"/")[2].decode() for path in find(*arguments)} == names


def test_newer_than_a_file(find, tmp_path):
    (tmp_path / "stamp").touch()
    os.utime(tmp_path / "stamp", ns=(0, 1_600_000_000 * SECOND))
    assert find("--newer", str(tmp_path / "stamp")) == [b"/Docs/a.txt"]


def test_json_tells_all_that_is_known(find):
    (line,) = find("--json", "--name", "a.txt")
    told = json.loads(line)
    assert told.pop("inode") > 1
    assert told == {
        "path": "/Docs/a.txt",
        "name": "a.txt",
        "type": "f",
        "size": 1,
        "mtime": "2023-11-14T22:13:20.000000005Z",
        "mtime_ns": 1_700_000_000 * SECOND + 5,
        "ctime": "1970-01-01T00:00:00.000000000Z",
        "ctime_ns": 0,
        "id": 11,
        "guid": "a",
        "folder_id": 7,
        "gvsn": "3",
        "acl": None,
    }
    names = {json.loads(line)["name"] for line in find("--json", "--size", "0")}
    assert names == {"two\nlines\x1b[2J", "\udcff"}


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (-1, "1969-12-31T23:59:59.999999999Z"),
        (-62_135_596_800 * SECOND, "0001-01-01T00:00:00.000000000Z"),
        (2**63 - 1, "2262-04-11T23:47:16.854775807Z"),
        (10**30, None),
        (-(10**30), None),
    ],
)
def test_times_are_written_to_the_nanosecond(moment, text):
    assert iso_time(moment) == text


@pytest.mark.parametrize(
    ("arguments", "status", "word"),
    [
        (["/nowhere"], 1, "/nowhere"),
        (["--where", "no such column"], 2, "expression"),
        (["--where", "1); DROP TABLE entry; --"], 2, "expression"),
        (["--size", "big"], 2, "+1M"),
        (["--size", "9999999999999999T"], 2, "64 bits"),
        (["--newer", "yesterday"], 2, "2026-11-20T08:30"),
        (["--type", "l"], 2, "--type"),
        (["--json", "-0"], 2, "--print0"),
        (["--config", "/nowhere.toml"], 2, "/nowhere.toml"),
    ],
)
def test_what_cannot_be_searched_for_is_one_line(fails, arguments, status, word):
    found, line = fails(*arguments)
    assert found == status
    assert word in line


def test_without_an_index_it_says_what_to_do(fails, monkeypatch):
    monkeypatch.setenv("CTERAFS_PORTAL_URL", "https://another.example")
    status, line = fails()
    assert status == 1
    assert "mount once" in line


def test_a_terminal_gets_no_control_characters():
    """Those of the names are safe anyway; the rest comes from the user."""
    leader, follower = pty.openpty()
    command = [sys.executable, "-m", "cterafs.cli.main", "find", "/Docs/a.txt/\x1b[2J/../."]
    piped = subprocess.run(command, capture_output=True, check=False)
    seen = subprocess.run(command, stdout=follower, stderr=subprocess.PIPE, check=False)
    os.close(follower)
    os.close(leader)
    assert (piped.returncode, seen.returncode) == (1, 1)
    assert b"\x1b" not in piped.stderr + seen.stderr


def test_who_reads_the_first_lines_only_is_no_error():
    command = f"{sys.executable} -m cterafs.cli.main find | head -n 1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, check=True)
    first, status = done.stdout.split()
    assert first.startswith(b"/Docs")
    assert status in {b"0", b"141"}
    assert done.stderr == b""
