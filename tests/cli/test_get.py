"""`cterafs get`, as a process of its own, against the embedded portal."""

import asyncio
import os
import random
import signal
import subprocess
import sys
import threading

import anyio
import pytest
from starlette.responses import Response

from cterafs import config
from cterafs.cli.download import download
from cterafs.cli.partial import Partial
from cterafs.demo.encoder import Encoding
from cterafs.demo.server import EmbeddedPortal
from cterafs.direct.client import DirectIO
from cterafs.model import ByteRange, Cursor, Event
from cterafs.namespace.store import Store
from cterafs.namespace.tree import Tree

BLOCK = 10_000
DATA = random.Random(1).randbytes(20 * BLOCK + 7)


@pytest.fixture
def portal():
    with EmbeddedPortal() as portal:
        yield portal


@pytest.fixture
def folder(portal):
    return portal.namespace.create_folder("Documents")


@pytest.fixture
def file(portal, folder):
    return portal.namespace.create(folder, "data.bin", DATA, encoding=Encoding(BLOCK))


@pytest.fixture
def environment(portal, tmp_path):
    return {
        "HOME": str(tmp_path),
        "PATH": os.environ["PATH"],
        "CTERAFS_CONFIG": os.devnull,
        "CTERAFS_PORTAL_URL": portal.url,
        "CTERAFS_DIRECT_ACCESS_KEY_ID": portal.access_key_id,
        "CTERAFS_DIRECT_SECRET_ACCESS_KEY": portal.secret_access_key,
        "CTERAFS_DIRECT_WORKERS": "1",  # so that blocks are asked for in order
    }


@pytest.fixture
def get(environment, tmp_path):
    def get(*arguments, **variables):
        return subprocess.run(
            [sys.executable, "-m", "cterafs.cli.main", "get", *map(str, arguments)],
            cwd=tmp_path,
            env=environment | variables,
            capture_output=True,
            check=False,
        )

    return get


def _blocks(portal, doing):
    before = portal.faults.requests["block"]
    doing()
    return portal.faults.requests["block"] - before


def _ok(done):
    assert done.returncode == 0, done.stderr
    assert done.stderr == b""


def test_by_file_id_under_that_name(get, file, tmp_path):
    _ok(get(file.version.file_id))
    assert (tmp_path / str(file.version.file_id)).read_bytes() == DATA
    assert len(list(tmp_path.iterdir())) == 1


def test_to_a_file_of_choice_which_it_replaces(get, file, tmp_path):
    (tmp_path / "out").write_bytes(b"before")
    _ok(get(file.version.file_id, "-o", "out"))
    assert (tmp_path / "out").read_bytes() == DATA


def test_into_a_directory(get, file, tmp_path):
    (tmp_path / "there").mkdir()
    _ok(get(file.version.file_id, "-o", "there"))
    assert (tmp_path / "there" / str(file.version.file_id)).read_bytes() == DATA


@pytest.mark.parametrize("name", ["x" * 255, "é" * 127, "x" * 243])
def test_the_longest_names_can_be_written(get, file, tmp_path, name):
    _ok(get(file.version.file_id, "-o", name))
    assert (tmp_path / name).read_bytes() == DATA
    assert len(list(tmp_path.iterdir())) == 1


def test_a_link_is_written_through(get, file, tmp_path):
    (tmp_path / "link").symlink_to("target")
    _ok(get(file.version.file_id, "-o", "link"))
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_bytes() == DATA


def test_a_device_is_written_and_not_replaced(get, file, tmp_path):
    (tmp_path / "null").symlink_to(os.devnull)
    _ok(get(file.version.file_id, "-o", "null"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["null"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0-0", DATA[:1]),
        ("5-12345", DATA[5:12346]),
        (f"{BLOCK}-{2 * BLOCK - 1}", DATA[BLOCK : 2 * BLOCK]),
        ("199999-", DATA[199999:]),
        ("0-99999999", DATA),
    ],
)
def test_a_range_includes_its_end(get, file, text, expected):
    done = get(file.version.file_id, "-o", "-", "--range", text)
    _ok(done)
    assert done.stdout == expected


def test_a_closed_standard_output_is_noticed(environment, file, tmp_path):
    command = f"'{sys.executable}' -m cterafs.cli.main get {file.version.file_id} -o - >&-"
    done = subprocess.run(["sh", "-c", command], cwd=tmp_path, env=environment, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (1, b"cterafs: standard output: Bad file descriptor\n")


def test_a_device_that_is_full_is_named(get, file):
    done = get(file.version.file_id, "-o", "/dev/full")
    assert (done.returncode, done.stderr) == (1, b"cterafs: /dev/full: No space left on device\n")


def test_without_a_word_it_asks_which_file(get):
    done = get("")
    assert (done.returncode, done.stderr.count(b"\n")) == (2, 1)
    assert b"which file?" in done.stderr


def test_a_broken_stream_tells_what_broke_it(get, file):
    done = get(file.version.file_id, CTERAFS_DIRECT_STORAGE_HOSTS="storage.example")
    assert done.returncode == 1
    assert done.stderr.startswith(b"cterafs: storage may not be contacted")


def test_a_range_into_a_file(get, file, tmp_path):
    _ok(get(file.version.file_id, "-o", "out", "--range", "9999-30000"))
    assert (tmp_path / "out").read_bytes() == DATA[9999:30001]


@pytest.mark.parametrize("text", ["5-3", "a-b", "7", "-5-", ""])
def test_a_range_that_is_none_is_a_usage_error(get, file, text):
    done = get(file.version.file_id, f"--range={text}")
    assert done.returncode == 2
    assert done.stderr.count(b"\n") == 1


def test_a_range_beyond_the_end(get, file):
    done = get(file.version.file_id, "--range", "999999-")
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"only 200007 bytes" in done.stderr


@pytest.fixture
def interrupted(get, portal, file, tmp_path):
    """A download to `out` that storage broke off after five blocks."""

    def refuse(kind, request):
        return Response(status_code=410) if portal.faults.requests["block"] > 5 else None

    portal.faults.storage = refuse
    done = get(file.version.file_id, "-o", "out")
    portal.faults.storage = None
    assert done.returncode == 1
    assert done.stderr.count(b"\n") == 1
    assert not (tmp_path / "out").exists()
    assert (tmp_path / "out.part").read_bytes() == DATA[: 5 * BLOCK]
    return tmp_path / "out"


def test_it_goes_on_where_it_stopped(get, portal, file, interrupted):
    assert _blocks(portal, lambda: _ok(get(file.version.file_id, "-o", "out"))) == 16
    assert interrupted.read_bytes() == DATA
    assert [path.name for path in interrupted.parent.iterdir()] == ["out"]


def test_the_beginning_of_another_version_is_not_joined_to_the_end_of_this(get, portal, file, interrupted):
    """The id and the size stay: only the blocks tell the versions apart."""
    portal.namespace.keep_file_ids = True
    file_id, other = file.version.file_id, DATA[::-1]
    portal.namespace.write(file, other, encoding=Encoding(BLOCK))
    assert file.version.file_id == file_id
    _ok(get(file.version.file_id, "-o", "out"))
    assert interrupted.read_bytes() == other


def test_an_interrupt_leaves_a_part_to_go_on_with(get, portal, file, environment, tmp_path):
    asked = threading.Event()

    async def hold(kind, request):
        if portal.faults.requests["block"] > 5:
            asked.set()
            await asyncio.Event().wait()

    portal.faults.storage = hold
    process = subprocess.Popen(
        [sys.executable, "-m", "cterafs.cli.main", "get", str(file.version.file_id), "-o", "out"],
        cwd=tmp_path,
        env=environment,
        stderr=subprocess.PIPE,
    )
    assert asked.wait(20)
    process.send_signal(signal.SIGINT)
    assert (process.communicate()[1], process.returncode) == (b"", 130)
    portal.faults.storage = None
    assert not (tmp_path / "out").exists()
    assert DATA.startswith((tmp_path / "out.part").read_bytes())
    _ok(get(file.version.file_id, "-o", "out"))
    assert (tmp_path / "out").read_bytes() == DATA


def test_a_part_that_only_lacks_its_name_needs_no_more_blocks(get, portal, file, tmp_path, monkeypatch):
    def die(part):
        raise KeyboardInterrupt

    async def almost():
        async with DirectIO(portal.url, portal.access_key_id, portal.secret_access_key) as client:
            await download(client, file.version.file_id, ByteRange(), tmp_path / "out", workers=4)

    monkeypatch.setattr(Partial, "finish", die)
    with pytest.raises((KeyboardInterrupt, BaseExceptionGroup)):
        anyio.run(almost, backend="trio")
    assert _blocks(portal, lambda: _ok(get(file.version.file_id, "-o", "out"))) == 0
    assert (tmp_path / "out").read_bytes() == DATA


def test_another_range_starts_anew(get, portal, file, interrupted):
    assert _blocks(portal, lambda: _ok(get(file.version.file_id, "-o", "out", "--range", "1-"))) == 21
    assert interrupted.read_bytes() == DATA[1:]


@pytest.mark.parametrize(
    ("variables", "status"),
    [
        ({"CTERAFS_DIRECT_ACCESS_KEY_ID": "wrong"}, 3),
        ({"CTERAFS_DIRECT_SECRET_ACCESS_KEY": "d3Jvbmc="}, 3),
        ({"CTERAFS_DIRECT_SECRET_ACCESS_KEY": ""}, 2),
        ({"CTERAFS_PORTAL_URL": ""}, 2),
        ({"CTERAFS_PORTAL_URL": "https://[::1"}, 2),
        ({"CTERAFS_PORTAL_URL": "http://127.0.0.1:1", "CTERAFS_DIRECT_TIMEOUT": "500ms"}, 4),
    ],
)
def test_what_is_wrong_decides_the_status(get, file, environment, variables, status):
    done = get(file.version.file_id, **variables)
    assert done.returncode == status, done.stderr
    assert done.stderr.count(b"\n") == 1
    assert environment["CTERAFS_DIRECT_SECRET_ACCESS_KEY"].encode() not in done.stderr


@pytest.mark.parametrize(("what", "status"), [("1", 1), ("9" * 30, 2), ("/no/index/yet", 1)])
def test_what_cannot_be_found(get, what, status):
    done = get(what)
    assert done.returncode == status, done.stderr
    assert done.stderr.count(b"\n") == 1


class TestByPath:
    @pytest.fixture(autouse=True)
    def _index(self, portal, folder, file, environment):
        events = [
            Event(guid="root", name="Documents", is_dir=True, folder_id=1),
            Event(
                guid="a",
                name="data.bin",
                is_dir=False,
                parent_guid="root",
                file_id=file.version.file_id,
                size=len(DATA),
            ),
            Event(guid="b", name="empty", is_dir=False, parent_guid="root", file_id=3, size=0),
            Event(guid="c", name="no id", is_dir=False, parent_guid="root", size=5),
        ]
        directory = config.state_directory(config.load(None, environment))
        directory.mkdir(parents=True)
        with Store.open(directory) as store, Tree(store) as tree:
            tree.prepare(events, Cursor("c"), listing=True, complete=True).commit()

    @pytest.mark.parametrize("path", ["/Documents/data.bin", "Documents/data.bin"])
    def test_under_its_name(self, get, tmp_path, path):
        _ok(get(path))
        assert (tmp_path / "data.bin").read_bytes() == DATA

    def test_an_empty_file_needs_no_blocks(self, get, tmp_path):
        _ok(get("/Documents/empty"))
        assert (tmp_path / "empty").read_bytes() == b""
        assert get("/Documents/empty", "--range", "1-").returncode == 2
        done = get("/Documents/empty", "-o", "-")
        assert (done.returncode, done.stdout) == (0, b"")

    @pytest.mark.parametrize(
        ("path", "complaint"),
        [
            ("/Documents", b"is a directory"),
            ("/Documents/absent", b"no such file"),
            ("/Documents/no id", b"no file id"),
        ],
    )
    def test_what_is_no_file(self, get, path, complaint):
        done = get(path)
        assert done.returncode == 1
        assert complaint in done.stderr
