"""`cterafs events`, against the embedded portal."""

import contextlib
import json
import os
import signal
import subprocess
import sys

import msgspec
import pytest

from cterafs import config
from cterafs.cli import main
from cterafs.demo.server import EmbeddedPortal
from cterafs.model import Cursor
from cterafs.namespace.store import Store
from cterafs.namespace.tree import Tree
from cterafs.portal.wire import decode_page

MOMENT = 1_700_000_000 * 10**9 + 5000


@pytest.fixture
def portal(monkeypatch, tmp_path):
    for name in [name for name in os.environ if name.startswith("CTERAFS_")]:
        monkeypatch.delenv(name)
    with EmbeddedPortal() as portal:
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("CTERAFS_CONFIG", os.devnull)
        for name, value in configured(portal).items():
            monkeypatch.setenv(name, value)
        yield portal


def configured(portal):
    return {
        "CTERAFS_PORTAL_URL": portal.url,
        "CTERAFS_PORTAL_CONTEXT": "admin",
        "CTERAFS_PORTAL_USERNAME": portal.username,
        "CTERAFS_PORTAL_PASSWORD": portal.password,
    }


@pytest.fixture
def folder(portal):
    return portal.namespace.create_folder("Docs")


@pytest.fixture
def run(portal, monkeypatch, capfdbinary):
    def run(*arguments, status=0):
        for name, value in configured(portal).items():  # `load` took the password away
            if name not in os.environ:
                monkeypatch.setenv(name, value)
        assert main.main(["events", *arguments]) == status
        return capfdbinary.readouterr()

    return run


@pytest.fixture
def told(run):
    """What a run prints as JSON, and the cursor after it."""

    def told(*arguments):
        out, err = run("--json", *arguments)
        assert err == b""
        lines = [json.loads(line) for line in out.splitlines()]
        return [line for line in lines if "event" in line], lines[-1]["cursor"]

    return told


def briefly(events):
    return [(event["event"], event["path"]) for event in events]


def test_what_there_is_and_where_to_go_on(portal, folder, told):
    item = portal.namespace.create(folder, "a.txt", b"12345", mtime_ns=MOMENT)
    events, cursor = told()
    assert briefly(events) == [("present", "/Docs"), ("present", "/Docs/a.txt")]
    file = events[1]
    assert file.pop("ctime_ns") > MOMENT
    assert file.pop("ctime").startswith("20")
    assert file == {
        "event": "present",
        "path": "/Docs/a.txt",
        "name": "a.txt",
        "type": "f",
        "size": 5,
        "mtime": "2023-11-14T22:13:20.000005000Z",
        "mtime_ns": MOMENT,
        "id": item.file.file_id,
        "guid": item.guid,
        "parent_guid": folder.guid,
        "folder_id": folder.folder_id,
        "gvsn": str(item.gvsn),
        "acl": None,
    }
    portal.namespace.delete(item)
    events, after = told("--cursor", cursor)
    assert briefly(events) == [("deleted", "/Docs/a.txt")]
    assert told("--cursor", after) == ([], after)


def test_paths_of_what_lies_in_directories_told_of_before(portal, folder, told):
    _, cursor = told()
    with portal.namespace.silence():
        deep = portal.namespace.mkdir(portal.namespace.mkdir(folder, "one"), "two")
    portal.namespace.create(deep, "file", b"1")
    portal.namespace.create(deep, "other", b"1")
    events, _ = told("--cursor", cursor)
    assert briefly(events) == [("present", "/Docs/one/two/file"), ("present", "/Docs/one/two/other")]
    assert portal.faults.requests["ancestors"] == 1


def test_old_portals_are_asked_about_the_child(portal, folder, told):
    portal.notifications.old_shape = True
    _, cursor = told()
    with portal.namespace.silence():
        deep = portal.namespace.mkdir(portal.namespace.mkdir(folder, "one"), "two")
    portal.namespace.create(deep, "file", b"1")
    assert briefly(told("--cursor", cursor)[0]) == [("present", "/Docs/one/two/file")]


def test_a_moved_directory_moves_what_is_below_it(portal, folder, told):
    one = portal.namespace.mkdir(folder, "one")
    file = portal.namespace.create(one, "file", b"1")
    _, cursor = told()
    portal.notifications.page_size = 1
    portal.namespace.tell(one, file)
    portal.namespace.rename(one, "renamed")
    portal.namespace.write(file, b"2")
    portal.namespace.delete(one)
    events, _ = told("--cursor", cursor)
    assert briefly(events) == [
        ("present", "/Docs/one"),
        ("present", "/Docs/one/file"),
        ("present", "/Docs/renamed"),
        ("present", "/Docs/renamed/file"),
        ("deleted", "/Docs/renamed"),
        ("deleted", "/Docs/renamed/file"),
    ]


def test_what_cannot_be_placed_has_no_path(portal, folder, told, run):
    gone = portal.namespace.mkdir(folder, "gone")
    file = portal.namespace.create(gone, "file", b"1")
    _, cursor = told()
    with portal.namespace.silence():
        portal.namespace.delete(gone)
    portal.namespace.tell(file)
    assert briefly(told("--cursor", cursor)[0]) == [("deleted", None)]
    out, _ = run("--cursor", cursor)
    assert b" deleted            1 ?/file\n" in out


def test_a_directory_that_is_said_to_lie_in_itself(portal, folder, told):
    one = portal.namespace.mkdir(folder, "one")
    one.parent = one
    portal.namespace.tell(one)
    events, _ = told()
    assert events[-1]["path"] is None


def test_as_text(portal, folder, run):
    portal.namespace.create(portal.namespace.mkdir(folder, "a/b"), "two\nlines", b"123")
    out, _ = run()
    *events, cursor = out.decode().splitlines()
    assert [line[20:] for line in events] == [
        " present            0 /Docs/",
        " present            0 /Docs/a␛2Fb/",
        " present            3 /Docs/a␛2Fb/two␛0Alines",
    ]
    assert cursor.startswith("# cursor ")
    assert run("--cursor", cursor.removeprefix("# cursor "))[0].decode() == f"{cursor}\n"


def fill(portal):
    """An index that has all that the portal has, and knows who owns the folders."""
    directory = config.state_directory(config.load(None, os.environ))
    directory.mkdir(parents=True)
    entries, cursor, _ = portal.namespace.feed.page([], None, 1000)
    page = decode_page(msgspec.json.encode({"entries": entries, "cursor": cursor, "has_more": False}))
    with Store.open(directory) as store, Tree(store, layout="folder") as tree:
        tree.prepare(page.events, Cursor(cursor), listing=True, complete=True).commit()
    return cursor


def test_the_index_tells_paths_without_asking(portal, folder, told):
    twin = portal.namespace.create_folder("Docs", owner=5)
    inside = portal.namespace.mkdir(twin, "inside")
    cursor = fill(portal)
    portal.namespace.create(inside, "file", b"1")
    portal.namespace.tell(twin)
    path = f"/Docs [{twin.folder_id}]"
    expected = [("present", f"{path}/inside/file"), ("present", path)]
    assert briefly(told("--cursor", cursor)[0]) == expected
    assert briefly(told("--cursor", "index")[0]) == expected
    assert portal.faults.requests["ancestors"] == 0


def test_an_index_of_another_time_is_not_believed(portal, folder, told):
    inside = portal.namespace.mkdir(folder, "inside")
    fill(portal)
    portal.namespace.create(folder, "news", b"1")
    _, cursor = told()
    with portal.namespace.silence():
        portal.namespace.rename(inside, "renamed")
    portal.namespace.create(inside, "file", b"1")
    assert briefly(told("--cursor", cursor)[0]) == [("present", "/Docs/renamed/file")]


@pytest.mark.parametrize(
    ("arguments", "variables", "status", "words"),
    [
        (["--cursor", "nonsense"], {}, 1, "cursor"),
        (["--cursor", "index"], {}, 1, "mount once"),
        ([], {"CTERAFS_PORTAL_PASSWORD": "wrong"}, 3, "password"),
        (["--follow"], {"CTERAFS_PORTAL_URL": "http://127.0.0.1:1"}, 4, "portal.url"),
    ],
)
def test_what_fails_is_one_line(run, monkeypatch, arguments, variables, status, words):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    out, err = run(*arguments, status=status)
    assert out == b""
    assert err.count(b"\n") == 1
    assert words in err.decode()


@contextlib.contextmanager
def following(*arguments):
    """A process that follows; gives a function that reads so many lines of it."""
    command = [sys.executable, "-m", "cterafs.cli.main", "events", "--json", "--follow", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:

        def events(count):
            found = []
            while len(found) < count:
                line = json.loads(process.stdout.readline())
                if "event" in line:
                    found.append((line["event"], line["path"]))
            return found

        yield process, events
        process.kill()


def test_following_prints_each_change_as_it_happens(portal, folder):
    with following() as (process, events):
        assert events(1) == [("present", "/Docs")]
        item = portal.namespace.create(folder, "file", b"1")
        assert events(1) == [("present", "/Docs/file")]
        portal.expire_sessions()
        portal.namespace.rename(item, "renamed")
        assert events(1) == [("present", "/Docs/renamed")]
        portal.stop()
        portal.namespace.delete(item)
        portal.start()
        assert events(1) == [("deleted", "/Docs/renamed")]
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
        assert process.returncode == 130
    assert b"Traceback" not in err
    assert all(b"WARNING" in line for line in err.splitlines())


def test_following_ends_with_its_reader(portal, folder):
    with following() as (process, events):
        assert events(1) == [("present", "/Docs")]
        process.stdout.close()
        portal.namespace.create(folder, "file", b"1")
        assert process.wait(30) == 141
        assert process.stderr.read() == b""


def test_following_ends_when_the_cursor_is_rejected(portal, folder):
    with following() as (process, events):
        assert events(1) == [("present", "/Docs")]
        assert portal.namespace.feed.wait_until_followed(30)
        portal.namespace.feed.reset()
        assert process.wait(30) == 1
        assert process.stderr.read().count(b"\n") == 1
