"""No secret leaves the process of a mount, whatever fails and however much is logged."""

from __future__ import annotations

import base64
import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qsl, quote, quote_plus

import pytest
from mount_processes import family
from ordinary_mount import OrdinaryMount
from real_mount import DEADLINE, Mount, finish
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from cterafs.demo.encoder import Codec, Encoding, data_key, wrap_key
from cterafs.demo.server import EmbeddedPortal

FILES = 10
CONTENT = random.Random(11).randbytes(300_000)
PASSWORD = 'a päss"word/with+signs'


class Known:
    """Every secret that the portal has, hands out or is sent. What is asked for can be made to fail."""

    def __init__(self, portal: EmbeddedPortal) -> None:
        self._portal = portal
        self._texts = {portal.password, portal.secret_access_key}
        self._bytes = {base64.b64decode(portal.secret_access_key)}
        self.fault: dict[str, Response] = {}
        portal.faults.portal = portal.faults.storage = self._ask

    def add_file(self, path: str) -> None:
        key = data_key(self._portal.namespace.find(path).version.seed)
        self._bytes.add(key)
        self._texts.add(wrap_key(key, self._portal.secret_access_key))

    def _ask(self, kind: str, request: Request) -> Response | None:
        self._texts.update(request.cookies.values())
        self._texts.update(value for name, value in request.headers.items() if name == "x-ctera-token")
        self._texts.update(value for _, value in parse_qsl(request.url.query) if len(value) > 20)
        return self.fault.get(kind)

    @property
    def texts(self) -> frozenset[str]:
        return frozenset(self._texts)

    def found_in(self, data: bytes) -> list[str]:
        """The secrets that `data` has in it, in whatever spelling."""
        raw = self._bytes | {text.encode() for text in self._texts}
        spellings = {
            spelling
            for secret in raw
            for spelling in (
                secret,
                secret.hex().encode(),
                base64.b64encode(secret).rstrip(b"="),
                repr(secret)[2:-1].encode(),
                quote(secret).encode(),
                quote_plus(secret).encode(),
            )
        }
        spellings |= {ascii(text)[1:-1].encode() for text in self._texts}
        return sorted(repr(spelling) for spelling in spellings if spelling in data)


@pytest.fixture
def portal() -> Iterator[EmbeddedPortal]:
    with EmbeddedPortal(password=PASSWORD) as portal:
        portal.namespace.encoding = Encoding(block_size=100_000, codec=Codec.SNAPPY)
        yield portal


@pytest.fixture
def known(portal: EmbeddedPortal) -> Known:
    return Known(portal)


@pytest.fixture
def folder(portal: EmbeddedPortal, known: Known, mount: Mount) -> Path:
    """Of equal files; the password comes from a command, the other secret from the environment."""
    folder = portal.namespace.create_folder("Folder")
    for number in range(FILES):
        portal.namespace.create(folder, str(number), CONTENT)
        known.add_file(f"Folder/{number}")
    command = mount.home / "command"
    command.write_text(f"#!/bin/sh\nenv >{mount.home}/environment-of-command\ncat <<'END'\n{PASSWORD}\nEND\n")
    command.chmod(0o700)
    mount.configure(
        portal_password="",
        portal_password_command=str(command),
        direct_secret_access_key="",
        direct_timeout="500ms",
        cache_disk="1GiB",
        readahead_max="0",  # or files are there before they are opened
        log_level="debug",
    )
    return mount.path / "Folder"


def fails(file: Path) -> bool:
    with file.open("rb", buffering=0) as reading:
        try:
            os.pread(reading.fileno(), 10, 0)
        except OSError:
            return True
    return False


def test_nothing_that_is_written_shown_or_started_has_a_secret_in_it(
    portal: EmbeddedPortal, mount: Mount, known: Known, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CTERAFS_DIRECT_SECRET_ACCESS_KEY", portal.secret_access_key)
    outputs: dict[str, bytes] = {}
    mount.start("-v")
    leaky = f"<p>{PASSWORD} {portal.secret_access_key}"
    faults: list[tuple[str, Response]] = [
        ("block", Response(status_code=403)),
        ("block", Response(leaky, status_code=400)),
        ("block", Response(leaky)),
        ("block", Response(b"x" * 100_001)),
        ("block", RedirectResponse(f"https://elsewhere.invalid/?{PASSWORD}")),
        ("directio", HTMLResponse(leaky, status_code=500)),
        ("directio", JSONResponse({"chunks": [{"url": f"file:///{PASSWORD}", "len": PASSWORD}]})),
        ("directio", JSONResponse({"chunks": [{"url": f"file:///{PASSWORD}", "len": 300_000}]})),
        ("directio", JSONResponse({"wrapped_key": PASSWORD, "chunks": [{"url": "x", "len": 300_000}]})),
    ]
    for number, (kind, fault) in enumerate(faults):
        known.fault[kind] = fault
        assert fails(folder / str(number)), number
        if number % 3 == 0:
            path = f"/Folder/{number}"
            done = mount.run("get", "-v", "--config", str(mount.config), "-o", "-", path, check=False)
            assert done.returncode != 0, number
            outputs[f"get, {number}"] = (done.stdout + done.stderr).encode()
        del known.fault[kind]
    for answer in (HTMLResponse(leaky), HTMLResponse(leaky, status_code=500), RedirectResponse(f"/login?{PASSWORD}")):
        known.fault["list"] = known.fault["longpoll"] = answer
        done = mount.run("events", "-v", "--config", str(mount.config), check=False)
        assert done.returncode != 0
        outputs[f"events, {answer.status_code}"] = done.stderr.encode()
        del known.fault["list"], known.fault["longpoll"]
    portal.accounts.expire_sessions()
    mount.settle()
    deadline = time.monotonic() + DEADLINE
    while fails(folder / str(FILES - 1)):  # half a second is short where much else goes on
        assert time.monotonic() < deadline
    path, config = str(mount.path), str(mount.config)
    for command in (("status", "-v", path), ("status", "--json", path), ("find", "-v", "--json", "--config", config)):
        done = mount.run(*command)
        outputs[" ".join(command)] = (done.stdout + done.stderr).encode()
    for pid in family(mount.pid):
        outputs[f"arguments of {pid}"] = Path(f"/proc/{pid}/cmdline").read_bytes()
    mount.stop()
    assert len(known.texts) > 8, "passwords, keys, sessions and signatures"
    assert b"CTERAFS" not in (mount.home / "environment-of-command").read_bytes()
    log = (mount.state / "mount.log").read_bytes()
    assert b" DEBUG " in log
    for path in mount.home.rglob("*"):
        if path.is_file() and path != mount.home / "command":
            outputs[str(path)] = path.read_bytes()
    assert {Path(name).name for name in outputs} >= {"mount.log", "index.db"}
    assert {name: found for name, data in outputs.items() if (found := known.found_in(data))} == {}


# --- of a user who is not root ----------------------------------------------------------------------------------------


@pytest.fixture
def ordinary(portal: EmbeddedPortal) -> Iterator[OrdinaryMount]:
    portal.namespace.create(portal.namespace.create_folder("Folder"), "file", CONTENT)
    with OrdinaryMount.in_new_home(portal) as mount:
        yield mount
        finish(mount)


def test_the_helper_that_mounts_and_unmounts_gets_no_secret(
    portal: EmbeddedPortal, ordinary: OrdinaryMount, known: Known, monkeypatch: pytest.MonkeyPatch
) -> None:
    ordinary.configure(portal_password="", direct_secret_access_key="")
    monkeypatch.setenv("CTERAFS_DIRECT_SECRET_ACCESS_KEY", portal.secret_access_key)
    monkeypatch.setenv("CTERAFS_PORTAL_PASSWORD", PASSWORD)
    seen = ordinary.watch_helper()
    ordinary.start()
    ordinary.stop()
    told = seen.read_bytes()
    assert told.count(b"called with") == 2
    assert b"HOME=" in told
    assert b"CTERAFS" not in told
    assert known.found_in(told) == []


def test_no_other_process_of_the_user_looks_into_a_mount(ordinary: OrdinaryMount) -> None:
    """Nor does any of its processes leave a core file: both are one property, which the kernel shows by the owner of
    what is in /proc/PID (proc(5))."""
    ordinary.start()
    for pid in family(ordinary.pid):
        for secret in ("environ", "maps", "mem"):
            assert Path(f"/proc/{pid}/{secret}").stat().st_uid == 0
            assert ordinary.as_user("cat", f"/proc/{pid}/{secret}").returncode != 0


def test_a_crash_leaves_no_core_file(ordinary: OrdinaryMount) -> None:
    """The kernel writes one into the working directory, unless it was told otherwise (core(5))."""
    ordinary.start()
    directory = Path(f"/proc/{ordinary.pid}/cwd").readlink()
    before = set(directory.iterdir())
    ordinary.signal(signal.SIGSEGV)
    assert set(directory.iterdir()) == before
    ordinary.run("umount", "--lazy", str(ordinary.path), check=False)
