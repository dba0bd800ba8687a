"""What happens in the watched directory is told as what it is."""

from __future__ import annotations

import os
import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from asking import Asker

from cterafs.demo.server import EmbeddedPortal


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root = tmp_path / "source"
    (root / "F" / "d").mkdir(parents=True)
    (root / "F" / "f").write_text("one")
    (root / "F" / "d" / "g").write_text("two")
    (root / "beside the folders").write_text("not shown")
    return root


class Watcher:
    """Collects what is told."""

    def __init__(self, portal: EmbeddedPortal, asker: Asker) -> None:
        self.portal = portal
        self.asker = asker
        asker.login()
        self.entries, self.cursor = self.asker.everything()
        self.guids = {entry["name"]: entry["guid"] for entry in self.entries}

    def until(self, path: str, *, exists: bool = True, size: int | None = None) -> list[dict[str, object]]:
        """All that is told until this object is there, or gone, or has this size."""
        told: list[dict[str, object]] = []
        while not self._reached(path, exists, size):
            entries, self.cursor = self.asker.next_changes(self.cursor)
            told += entries
        page = self.asker.page(self.cursor)
        self.cursor = page["cursor"]
        return told + page["entries"]

    def _reached(self, path: str, exists: bool, size: int | None) -> bool:
        namespace = self.portal.namespace
        if not namespace.exists(path):
            return not exists
        return exists and (size is None or namespace.find(path).file.size == size)


@pytest.fixture
def watcher(source: Path) -> Iterator[Watcher]:
    with EmbeddedPortal(source) as portal, Asker(portal) as asker:
        yield Watcher(portal, asker)


def brief(entries: list[dict[str, object]]) -> list[tuple[object, object, object]]:
    return [(entry["name"], entry["type"], entry["deleted"]) for entry in entries]


def test_the_tree_is_listed(watcher: Watcher) -> None:
    assert {(entry["name"], entry["type"], entry.get("size")) for entry in watcher.entries} == {
        ("F", "folder", None),
        ("d", "folder", None),
        ("f", "file", 3),
        ("g", "file", 3),
    }


def test_a_new_file_and_what_is_written_to_it(watcher: Watcher, source: Path) -> None:
    (source / "F" / "new").write_text("1")
    told = watcher.until("F/new", size=1)
    guid = told[-1]["guid"]
    assert ("new", "file", False) in brief(told)
    (source / "F" / "new").write_text("12")
    told = watcher.until("F/new", size=2)
    assert {entry["guid"] for entry in told} == {guid}


def test_a_rename(watcher: Watcher, source: Path) -> None:
    before = watcher.portal.namespace.find("F/f").file
    (source / "F" / "f").rename(source / "F" / "renamed")
    told = watcher.until("F/renamed")
    assert [(entry["guid"], entry["name"]) for entry in told] == [(watcher.guids["f"], "renamed")]
    assert told[0]["id"] == before.file_id


def test_a_move_between_directories(watcher: Watcher, source: Path) -> None:
    (source / "F" / "f").rename(source / "F" / "d" / "moved")
    told = watcher.until("F/d/moved")
    assert [(entry["guid"], entry["parent_guid"]) for entry in told] == [(watcher.guids["f"], watcher.guids["d"])]


def test_a_rename_of_a_directory_tells_of_it_alone(watcher: Watcher, source: Path) -> None:
    (source / "F" / "d").rename(source / "F" / "e")
    told = watcher.until("F/e/g")
    assert [(entry["guid"], entry["name"]) for entry in told] == [(watcher.guids["d"], "e")]


def test_a_rename_of_a_cloud_folder(watcher: Watcher, source: Path) -> None:
    (source / "F").rename(source / "G")
    told = watcher.until("G/d/g")
    assert [(entry["guid"], entry["name"]) for entry in told] == [(watcher.guids["F"], "G")]


def test_a_replacement_is_new_content_of_the_name(watcher: Watcher, source: Path) -> None:
    (source / "F" / "f.tmp").write_text("replaced")
    (source / "F" / "f.tmp").replace(source / "F" / "f")
    told = watcher.until("F/f", size=8)
    assert [entry["guid"] for entry in told if entry["name"] == "f"] == [watcher.guids["f"]]
    assert not watcher.portal.namespace.exists("F/f.tmp")


def test_files_that_only_change_names_keep_their_guids(watcher: Watcher, source: Path) -> None:
    folder = source / "F"
    (folder / "d" / "g").rename(folder / "older")
    watcher.until("F/older")
    with_names = {"older": watcher.guids["g"], "oldest": None}
    (folder / "older").rename(folder / "oldest")
    (folder / "f").rename(folder / "older")
    watcher.until("F/oldest")
    namespace = watcher.portal.namespace
    assert namespace.find("F/oldest").guid == with_names["older"]
    assert namespace.find("F/older").guid == watcher.guids["f"]


def test_a_deletion(watcher: Watcher, source: Path) -> None:
    shutil.rmtree(source / "F" / "d")
    told = watcher.until("F/d", exists=False)
    gone = {entry["guid"] for entry in told if entry["deleted"]}
    assert gone == {watcher.guids["d"], watcher.guids["g"]}


def test_a_file_becomes_a_directory(watcher: Watcher, source: Path) -> None:
    (source / "F" / "f").unlink()
    (source / "F" / "f").mkdir()
    (source / "F" / "f" / "inside").write_text("x")
    watcher.until("F/f/inside")
    assert watcher.portal.namespace.find("F/f").guid != watcher.guids["f"]


def test_a_new_tree(watcher: Watcher, source: Path) -> None:
    deep = source / "G" / "a" / "b" / "c"
    deep.mkdir(parents=True)
    (deep / "x").write_text("deep")
    told = watcher.until("G/a/b/c/x", size=4)
    assert [entry["name"] for entry in told if entry["type"] == "folder"] == ["G", "a", "b", "c"]


def test_a_move_to_another_cloud_folder_is_another_object(watcher: Watcher, source: Path) -> None:
    (source / "G").mkdir()
    (source / "F" / "d").rename(source / "G" / "d")
    watcher.until("F/d", exists=False)
    watcher.until("G/d/g")
    assert watcher.portal.namespace.find("G/d/g").guid != watcher.guids["g"]


def test_only_files_and_directories_are_shown(watcher: Watcher, source: Path) -> None:
    (source / "F" / "link").symlink_to(source / "F" / "f")
    (source / "linked folder").symlink_to(source / "F")
    os.mkfifo(source / "F" / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(source / "F" / "socket"))
    (source / "F" / os.fsdecode(b"\xff")).write_text("no text is its name")
    (source / "F" / "last").write_text("x")
    told = watcher.until("F/last", size=1)
    assert {entry["name"] for entry in told} == {"last"}


def test_another_link_is_another_file(watcher: Watcher, source: Path) -> None:
    os.link(source / "F" / "f", source / "F" / "d" / "link")
    watcher.until("F/d/link")
    assert watcher.portal.namespace.find("F/d/link").guid != watcher.guids["f"]
    (source / "F" / "d" / "link").unlink()
    watcher.until("F/d/link", exists=False)
    assert watcher.asker.blocks(watcher.portal.namespace.find("F/f").file.file_id).status_code == 200


def test_old_versions_live_as_long_as_somebody_reads_them(watcher: Watcher, source: Path) -> None:
    namespace = watcher.portal.namespace
    (url,) = watcher.asker.urls(namespace.find("F/f").file.file_id)
    before = httpx.get(url).content
    (source / "F" / "f.tmp").write_text("replaced")
    (source / "F" / "f.tmp").replace(source / "F" / "f")
    watcher.until("F/f", size=8)
    assert httpx.get(url).content == before  # it was open
    (url,) = watcher.asker.urls(namespace.find("F/f").file.file_id)
    assert httpx.get(url).status_code == 200
    (source / "F" / "f").write_text("written over")
    assert httpx.get(url).status_code == 404


def test_a_version_that_was_replaced_before_anybody_read_it_is_gone(watcher: Watcher, source: Path) -> None:
    version = watcher.portal.namespace.find("F/f").file
    url = watcher.portal.store.url(version, 0)
    (source / "F" / "f").unlink()
    assert httpx.get(url).status_code == 404
    assert watcher.asker.blocks(version.file_id).status_code == 400


def test_changes_before_the_watch_began_are_told(tmp_path: Path) -> None:
    (tmp_path / "F").mkdir()
    with EmbeddedPortal(tmp_path) as portal:
        (tmp_path / "F" / "early").write_text("x")
        assert portal.namespace.feed.wait_until(lambda: portal.namespace.exists("F/early"), 10)
        portal.stop()
        (tmp_path / "F" / "while it was away").write_text("x")
        assert portal.namespace.feed.wait_until(lambda: portal.namespace.exists("F/while it was away"), 10)
        portal.start()
        assert {item.name for item in portal.namespace.find("F").subtree()} == {"F", "early", "while it was away"}


def test_nobody_watches_after_the_end(source: Path) -> None:
    with EmbeddedPortal(source):
        assert "source" in {thread.name for thread in threading.enumerate()}
    assert "source" not in {thread.name for thread in threading.enumerate()}


def test_a_source_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    portal = EmbeddedPortal(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError):
        portal.start()
    portal.close()
