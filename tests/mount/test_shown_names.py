"""Whatever a portal calls things: shown safely, uniquely and for ever under the same name, and found again by it."""

from __future__ import annotations

import json
import os
import subprocess
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from real_mount import Mount
from starlette.requests import Request
from starlette.responses import Response

from cterafs.demo.feed import CursorRejected
from cterafs.demo.namespace import Namespace
from cterafs.demo.objects import Item
from cterafs.demo.server import EmbeddedPortal

NAMES = [
    "plain.txt",
    "",
    ".",
    "..",
    "...",
    ".hidden",
    " ",
    "-rf *",
    "a/b",
    "/",
    "../../../etc/passwd",
    "a\0b",
    "\0",
    "two\nlines",
    "bell\x07 and \x1b[2J",
    "\x7f",
    "\x9b31m",
    "\ud800",
    "half \udcff.txt",
    "␛",
    "a␛2Fb",
    "caf\u00e9",
    unicodedata.normalize("NFD", "caf\u00e9"),
    "Case.txt",
    "CASE.TXT",
    "case.txt",
    "漢字 🎬.mov",
    "\u202egnp.exe",
    "x" * 255,
    "x" * 256,
    "x" * 257,
    "é" * 127 + "x",
    "é" * 128,
    "漢" * 100 + ".docx",
    "漢" * 101 + ".docx",
    "/" * 300,
]
NAME = "user.ctera.name"


@pytest.fixture
def portal() -> Iterator[EmbeddedPortal]:
    """A portal that can send lone surrogates, as JSON can, and as msgspec does not."""
    with EmbeddedPortal() as portal:

        async def answer(kind: str, request: Request) -> Response | None:
            if kind != "list":
                return None
            asked = await request.json()
            try:
                entries, cursor, more = portal.namespace.feed.page(asked["folder_ids"], asked["cursor"], 2000)
            except CursorRejected:
                return Response(status_code=400)
            told = [msgspec.structs.asdict(entry) for entry in entries]
            return Response(json.dumps({"entries": told, "cursor": cursor, "has_more": more}))

        portal.faults.portal = answer
        yield portal


@pytest.fixture
def namespace(portal: EmbeddedPortal) -> Namespace:
    return portal.namespace


@pytest.fixture
def folder(namespace: Namespace) -> Item:
    return namespace.create_folder("Names")


def original(path: Path) -> str:
    return os.getxattr(path, NAME, follow_symlinks=False).decode("utf-8", "surrogatepass")


def understood(name: str) -> str:
    """What UTF-8 cannot hold is taken for a private character, so that no two names become one."""
    return "".join(chr(0x100000 + ord(letter)) if "\ud800" <= letter <= "\udfff" else letter for letter in name)


def shown(directory: Path) -> dict[str, tuple[str, int]]:
    """By guid: how the entries of a directory are shown, and their inodes."""
    return {
        os.getxattr(path, "user.ctera.guid").decode(): (path.name, path.stat().st_ino) for path in directory.iterdir()
    }


def list_again(namespace: Namespace, folder: Item, mount: Mount) -> None:
    namespace.feed.reset()
    item = namespace.create(folder, "told after the listing", b"")
    namespace.delete(item)
    mount.settle()


def rename_unseen(namespace: Namespace, item: Item, name: str) -> None:
    """Gives an object a name that another one of its directory may have, which the portal's own tree would refuse."""
    item.name = name
    namespace.tell(item)


def test_any_name_is_shown_and_works_with_ordinary_tools(
    namespace: Namespace, folder: Item, mount: Mount, tmp_path: Path
) -> None:
    for number, name in enumerate(NAMES):
        namespace.create(folder, name, f"content {number}".encode())
    directories = [namespace.mkdir(folder, f"{name} as a directory") for name in NAMES]
    for number, directory in enumerate(directories):
        namespace.create(directory, "inside", f"inside {number}".encode())
    mount.start()
    root = mount.path / "Names"

    listed = subprocess.run(["ls", "-1A", root], capture_output=True, check=True).stdout.splitlines()
    command = ["find", root, "-mindepth", "1", "-maxdepth", "1", "-print0"]
    found = subprocess.run(command, capture_output=True, check=True).stdout.split(b"\0")[:-1]
    names = [os.path.basename(path) for path in found]  # noqa: PTH119  # these are bytes
    assert sorted(listed) == sorted(names)
    assert len(set(names)) == len(NAMES) * 2
    for name in names:
        text = name.decode()  # all of it is UTF-8
        assert len(name) <= 255
        assert not any(unicodedata.category(letter) in {"Cc", "Cs"} or letter == "/" for letter in text)

    contents = {original(path): path.read_bytes() for path in root.iterdir() if path.is_file()}
    assert contents == {understood(name): f"content {number}".encode() for number, name in enumerate(NAMES)}
    assert {original(path) for path in root.iterdir() if path.is_dir()} == {understood(d.name) for d in directories}

    subprocess.run(["cp", "-r", root, tmp_path / "copy"], check=True)
    subprocess.run(["diff", "-r", root, tmp_path / "copy"], check=True)
    assert sorted(os.fsencode(path.name) for path in (tmp_path / "copy").iterdir()) == sorted(names)
    assert len(list((tmp_path / "copy").glob("*/inside"))) == len(NAMES)


def test_names_that_are_one_to_the_careless_are_two(namespace: Namespace, folder: Item, mount: Mount) -> None:
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    for name in (composed, decomposed, "CASE", "case"):
        namespace.create(folder, name, name.encode())
    mount.start()
    for name in (composed, decomposed, "CASE", "case"):
        assert (mount.path / "Names" / name).read_text() == name
    assert not (mount.path / "Names/Case").exists()
    assert not (mount.path / "Names" / composed.upper()).exists()


def test_names_and_inodes_stay_across_mounts_and_listings(namespace: Namespace, folder: Item, mount: Mount) -> None:
    for name in NAMES:
        namespace.create(folder, name, name.encode("utf-8", "surrogatepass"))
    twin = namespace.create(folder, "for now", b"twin")
    rename_unseen(namespace, twin, "plain.txt")
    mount.start()
    before = shown(mount.path / "Names")
    assert len({name for name, _ in before.values()}) == len(before) == len(NAMES) + 1
    list_again(namespace, folder, mount)
    assert shown(mount.path / "Names") == before
    mount.stop()
    namespace.sort_listing(lambda item: (item.parent is not None, -int(item.guid.rpartition(":")[2])))
    mount.start()
    assert shown(mount.path / "Names") == before
    list_again(namespace, folder, mount)
    assert shown(mount.path / "Names") == before


@pytest.mark.parametrize("order", [list, reversed], ids=["in order", "reversed"])
def test_two_objects_of_one_name(namespace: Namespace, folder: Item, mount: Mount, order: type) -> None:
    with namespace.batch(order):
        first, second = namespace.create(folder, "one", b"first"), namespace.create(folder, "two", b"second")
        rename_unseen(namespace, first, "report.txt")
        rename_unseen(namespace, second, "report.txt")
        if order is reversed:  # what is told of one object stays in order
            namespace.tell(second, first)
    mount.start()
    root = mount.path / "Names"
    assert (root / "report.txt").read_bytes() == b"first"  # the smaller guid has it, whatever came first
    (other,) = {path.name for path in root.iterdir()} - {"report.txt"}
    assert other.startswith("report␛#")
    assert other.endswith(".txt")
    assert (root / other).read_bytes() == b"second"
    assert original(root / other) == "report.txt"
    inode = (root / other).stat().st_ino

    rename_unseen(namespace, first, "elsewhere.txt")
    mount.settle()
    assert {path.name for path in root.iterdir()} == {"report.txt", "elsewhere.txt"}
    assert (root / "report.txt").read_bytes() == b"second"
    assert (root / "report.txt").stat().st_ino == inode
    assert not (root / other).exists()

    rename_unseen(namespace, first, "report.txt")
    mount.settle()
    assert (root / "report.txt").read_bytes() == b"first"
    assert (root / other).stat().st_ino == inode


def test_cloud_folders_of_one_name(portal: EmbeddedPortal, namespace: Namespace, mount: Mount) -> None:
    ann, bob = portal.accounts.add("ann"), portal.accounts.add("b/b", domain="corp.example")
    folders = [namespace.create_folder("Docs", owner) for owner in (ann.uid, bob.uid, None)]
    namespace.create_folder("Plans", ann.uid)
    for item in folders:
        namespace.create(item, "whose", str(item.folder_id).encode())
    mount.start()
    last = folders[2].folder_id
    names = {path.name for path in mount.path.iterdir()}
    assert f"Docs [{last}]" in names
    assert {"Docs (ann)", "Plans"} < names
    assert len(names) == 4
    assert {int((path / "whose").read_bytes()) for path in mount.path.glob("Docs*")} == {
        item.folder_id for item in folders
    }
    assert {original(path) for path in mount.path.iterdir()} == {"Docs", "Plans"}

    namespace.delete(folders[1])
    namespace.delete(folders[2])
    mount.settle()
    assert {path.name for path in mount.path.iterdir()} == {"Docs", "Plans"}
    assert (mount.path / "Docs/whose").read_bytes() == str(folders[0].folder_id).encode()


def test_the_layout_by_owners_and_back(portal: EmbeddedPortal, namespace: Namespace, mount: Mount) -> None:
    ann, odd = portal.accounts.add("ann"), portal.accounts.add("..")
    folders = {
        "ann/Docs": namespace.create_folder("Docs", ann.uid),
        "ann/Plans": namespace.create_folder("Plans", ann.uid),
        "␛2E./Docs": namespace.create_folder("Docs", odd.uid),
        "Docs": namespace.create_folder("Docs"),
    }
    for path, item in folders.items():
        namespace.create(item, "where", path.encode())
    inodes: dict[str, int] = {}
    for _ in range(2):
        mount.configure(mount_layout="owner")
        mount.start()
        assert {path.name for path in mount.path.iterdir()} == {"ann", "␛2E.", "Docs"}
        for path in folders:
            assert (mount.path / path / "where").read_text() == path
            assert inodes.setdefault(path, (mount.path / path / "where").stat().st_ino) > 1
        mount.stop()
        mount.configure()
        mount.start()
        assert (mount.path / "Docs (ann)/where").read_text() == "ann/Docs"
        assert (mount.path / "Docs (ann)/where").stat().st_ino == inodes["ann/Docs"]
        assert (mount.path / "Docs (..)/where").read_text() == "␛2E./Docs"
        mount.stop()
