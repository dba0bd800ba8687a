"""A portal that wants to do harm: where it sends the mount, which lists and keys it makes up, what it has shown."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import pty
import re
import socket
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from network import Network
from real_mount import CTERAFS, DEADLINE, Mount, finish
from starlette.requests import Request
from starlette.responses import Response

from cterafs.demo.encoder import Codec, Encoding
from cterafs.demo.faultplan import FaultPlan
from cterafs.demo.injections import Redirect, Status
from cterafs.demo.server import EmbeddedPortal

CONTENT = bytes(range(256)) * 400
PLAIN = Encoding(block_size=len(CONTENT), codec=Codec.NONE, encrypted=False)
SIZE = len(CONTENT)


class Lists:
    """A portal whose lists of blocks are made up: a file for each of them."""

    def __init__(self, portal: EmbeddedPortal, answers: Sequence[object]) -> None:
        self._folder = portal.namespace.create_folder("Folder")
        items = [portal.namespace.create(self._folder, f"{n}", CONTENT, encoding=PLAIN) for n in range(len(answers))]
        self._answers = {item.file.file_id: answer for item, answer in zip(items, answers, strict=True)}
        self.honest = portal.namespace.create(self._folder, "honest", CONTENT, encoding=PLAIN)
        portal.faults.portal = self._answer

    def _answer(self, kind: str, request: Request) -> Response | None:
        if kind != "directio":
            return None
        answer = self._answers.get(int(request.path_params["file_id"]))
        return None if answer is None else Response(json.dumps(answer), media_type="application/json")


def error_of(file: Path) -> int:
    with pytest.raises(OSError) as refused:  # noqa: PT011  # which one is what is asked for
        file.read_bytes()
    return refused.value.errno or 0


def assert_unharmed(mount: Mount) -> None:
    assert (mount.path / "Folder/honest").read_bytes() == CONTENT
    assert mount.status()["state"] == "live"
    assert not [line for line in mount.complaints() if "unexpected" in line or "Traceback" in line]


def chunk(url: str, length: object = SIZE) -> dict[str, object]:
    return {"url": url, "len": length}


def at(url: str) -> dict[str, object]:
    return {"encrypt_info": {"data_encrypted": False}, "compression_type": "NONE", "chunks": [chunk(url)]}


@contextlib.contextmanager
def nobody_calls(address: str) -> Iterator[int]:
    """A port at which no connection may arrive."""
    with socket.create_server((address, 0)) as listener:
        listener.setblocking(False)
        yield listener.getsockname()[1]
        with pytest.raises(BlockingIOError):
            listener.accept()


def test_chunks_that_are_nowhere_or_where_no_storage_is(mount: Mount, portal: EmbeddedPortal) -> None:
    addresses = [
        "",
        "/etc/passwd",
        "file:///etc/passwd",
        "ftp://127.0.0.1/x",
        "javascript:alert(1)",
        "http:///x",
        "http://127.0.0.1:99999/x",
        "http://user:password@127.0.0.1/x",
        "http://169.254.169.254/latest/meta-data/",
        "http://[::ffff:169.254.169.254]/x",
        "http://2852039166/latest/meta-data/",
        "http://[fe80::1]/x",
        "http://224.0.0.1/x",
        "http://" + "a" * 64 + ".example/x",
        "http://a b/x",
        "http://\ud800/x",
        "//" + "x" * 100_000,
    ]
    Lists(portal, [at(address) for address in addresses])
    mount.configure(direct_timeout="5s")
    mount.start()
    for number, address in enumerate(addresses):
        assert error_of(mount.path / f"Folder/{number}") == errno.EIO, address
    assert_unharmed(mount)


def test_chunks_on_this_machine_when_the_portal_is_on_another(tmp_path: Path) -> None:
    with Network() as network, EmbeddedPortal(host=network.portal) as portal, nobody_calls("127.0.0.1") as port:
        hosts = ["127.0.0.1", "localhost", "127.1", "2130706433", "0x7f000001", "0.0.0.0", "[::ffff:127.0.0.1]"]
        Lists(portal, [at(f"http://{host}:{port}/x") for host in hosts])
        mount = Mount(portal, tmp_path)
        try:
            mount.start()
            for number, host in enumerate(hosts):
                assert error_of(mount.path / f"Folder/{number}") == errno.EIO, host
            assert_unharmed(mount)
        finally:
            finish(mount)


def test_only_the_hosts_that_were_named_are_asked(mount: Mount, portal: EmbeddedPortal) -> None:
    Lists(portal, [])
    mount.configure(direct_storage_hosts=["storage.example"])
    mount.start()
    assert error_of(mount.path / "Folder/honest") == errno.EIO
    assert portal.faults.requests["block"] == 0
    (complaint,) = mount.complaints()
    assert "127.0.0.1 is not in direct.storage_hosts" in complaint
    mount.stop()
    mount.configure(direct_storage_hosts=["storage.example", "127.0.0.1"])
    mount.start()
    assert (mount.path / "Folder/honest").read_bytes() == CONTENT


def test_a_request_cannot_be_smuggled_in_by_an_address(mount: Mount, portal: EmbeddedPortal) -> None:
    paths = ["/blocks/0/x\r\nX-Evil: 1\r\n", "/blocks/0/x HTTP/1.1\r\nX-Evil: 1\r\n\r\nGET /", "/blocks/0/\u0130\n\0"]
    Lists(portal, [at(f"{portal.storage_url}{path}") for path in paths])
    asked: list[Request] = []
    portal.faults.storage = lambda kind, request: asked.append(request)
    mount.start()
    for number in range(len(paths)):
        assert error_of(mount.path / f"Folder/{number}") in {errno.EIO, errno.ESTALE}
    assert asked
    assert not [request for request in asked if "x-evil" in request.headers or "authorization" in request.headers]
    portal.faults.storage = None
    assert_unharmed(mount)


def test_redirects_of_the_portal_are_not_followed(mount: Mount, portal: EmbeddedPortal) -> None:
    """They would take credentials along."""
    Lists(portal, [])
    with nobody_calls("127.0.0.2") as port:
        away = f"http://127.0.0.2:{port}/"
        portal.faults.plan = FaultPlan([Redirect(kind="portal", status=307, location=away)])
        done = mount.run("mount", "--config", str(mount.config), str(mount.path), check=False)
        assert (done.returncode != 0, done.stderr.count("\n")) == (True, 1)
        portal.faults.plan = None
        mount.start()
        for status in (302, 307):
            portal.faults.plan = FaultPlan([Redirect(kind="directio", status=status, location=away)])
            assert error_of(mount.path / "Folder/honest") == errno.EIO
    portal.faults.plan = None
    assert_unharmed(mount)


def test_lists_and_keys_that_make_no_sense(mount: Mount, portal: EmbeddedPortal) -> None:
    url = f"{portal.storage_url}/blocks/00000001/{'0' * 40}-0"
    clear = {"encrypt_info": {"data_encrypted": False}, "compression_type": "NONE"}
    lengths: list[list[object]] = [
        [-1],
        [0],
        [SIZE, -SIZE],
        [SIZE + 1, -1],
        [SIZE, SIZE],
        [SIZE - 1],
        [64 << 20, 64 << 20],
        [2**31],
        [2**63],
        [2**64 + SIZE],
        [10**400],
        ["1", None],
        [1.5],
        [True],
        [1] * 200_000,
    ]
    answers: list[object] = [clear | {"chunks": [chunk(url, length) for length in each]} for each in lengths]
    answers += [
        clear | {"chunks": [chunk(url)], "actual_blocks_range": {"file_size": size, "range": span}}
        for size, span in [(SIZE, f"5-{SIZE}"), (-1, "0-1"), (2**70, "0-1"), (SIZE, "-5-9"), (SIZE, "9" * 5000)]
    ]
    keys: list[object] = [
        "",
        "AAAA",
        "no base64 at all",
        "A" * 1_000_000,
        None,
        7,
        ["x"],
        {"a": {}},
        "\u0130",
        "/wAA" * 16,
    ]
    answers += [{"encrypt_info": {"wrapped_key": key, "data_encrypted": True}, "chunks": [chunk(url)]} for key in keys]
    answers += [{"wrapped_key": key, "chunks": [chunk(url)]} for key in keys[1:4]]
    answers += [[], "text", 7, {"chunks": {}}, {"chunks": [[]]}, {"chunks": [{"len": 1}]}]
    Lists(portal, answers)
    mount.start()
    for number, answer in enumerate(answers):
        code = error_of(mount.path / f"Folder/{number}")
        assert code in {errno.EIO, errno.ESTALE, errno.ENODATA}, (errno.errorcode[code], str(answer)[:200])
    assert_unharmed(mount)


STEERING = "\x1b]0;owned\x07\x1b[2J\u009b31m\u202e\r\x7f"


def on_a_terminal(mount: Mount, *arguments: str) -> str:
    """What a command writes to the terminal it is started on."""
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "rb", buffering=0) as terminal:
        command = [*CTERAFS, *arguments]
        with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=mount.environment) as process:
            os.close(theirs)
            written = b""
            with contextlib.suppress(OSError):  # EIO: nobody has it open any more
                while piece := terminal.read(65536):
                    written += piece
            process.wait(DEADLINE)
    return written.decode()


def test_nothing_that_the_portal_says_drives_a_terminal(mount: Mount, portal: EmbeddedPortal, tmp_path: Path) -> None:
    folder = portal.namespace.create_folder(f"Folder{STEERING}", portal.accounts.add(f"ann{STEERING}").uid)
    portal.namespace.create_folder(f"Folder{STEERING}")
    item = portal.namespace.create(folder, f"file{STEERING}", CONTENT)
    configured = ("--config", str(mount.config))
    mount.configure(cache_disk="1GiB", cache_directory=str(tmp_path / "cache"))
    shown = [on_a_terminal(mount, "mount", *configured, str(mount.path))]
    (path,) = mount.path.glob("*/file*")
    shown += [
        on_a_terminal(mount, "find", str(mount.path)),
        on_a_terminal(mount, "events", *configured),
        on_a_terminal(mount, "warm", str(mount.path)),
        on_a_terminal(mount, "get", *configured, f"/{path.relative_to(mount.path)}", "-o", str(tmp_path / "got")),
        on_a_terminal(mount, "status", str(mount.path)),
    ]
    assert (tmp_path / "got").read_bytes() == CONTENT
    assert sum("owned" in text for text in shown) >= 2
    refusal = json.dumps({"details": [{"error": f"no{STEERING}"}]}, ensure_ascii=False)
    portal.faults.plan = FaultPlan([Status(kind="portal", status=400, body=f"{refusal}{STEERING}")])
    portal.namespace.write(item, b"new")
    (tmp_path / "got").unlink()
    shown += [
        on_a_terminal(mount, "events", "-v", *configured),
        on_a_terminal(mount, "get", "-v", *configured, str(item.file.file_id), "-o", str(tmp_path / "got")),
        on_a_terminal(mount, "status", str(mount.path)),
        on_a_terminal(mount, "find", f"{mount.path}/none{STEERING}"),
    ]
    for text in shown:
        ours = re.sub(r"\x1b\[K|\r|\n", "", text)
        assert ours.isprintable(), ours
    assert all(line.isprintable() for line in (mount.state / "mount.log").read_text().split("\n"))
