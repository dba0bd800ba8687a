"""A plan of faults: which requests it strikes, what comes over the wire then, and how a file of it is read."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from http.client import HTTPConnection, HTTPResponse, IncompleteRead
from pathlib import Path
from typing import get_args
from urllib.parse import urlsplit

import httpx
import pytest
from asking import Asker

from cterafs.demo import injections
from cterafs.demo.encoder import Codec, Encoding
from cterafs.demo.faultplan import BadPlan, FaultPlan
from cterafs.demo.injections import (
    AnyRule,
    ContentType,
    Corrupt,
    Delay,
    Drip,
    Drop,
    Hang,
    Length,
    Redirect,
    Resize,
    Stall,
    Status,
    Swap,
    Truncate,
)
from cterafs.demo.server import EmbeddedPortal

CONTENT = bytes(range(100)) + bytes(range(100, 200))
PATIENCE = 0.2
"""Seconds that a client waits for what will never come."""


class Client:
    """One connection to storage, over which the two blocks of a file are asked for."""

    def __init__(self, portal: EmbeddedPortal, urls: list[str]) -> None:
        self.portal = portal
        self.paths = ["{0.path}?{0.query}".format(urlsplit(url)) for url in urls]
        self.connection = HTTPConnection(urlsplit(portal.storage_url).netloc, timeout=60)

    def plan(self, *rules: AnyRule, seed: int = 0, clock: Callable[[], float] = lambda: 0.0) -> FaultPlan:
        self.portal.faults.plan = FaultPlan(rules, seed, clock)
        return self.portal.faults.plan

    def hurry(self) -> None:
        self.connection.close()
        self.connection.timeout = PATIENCE

    def get(self, index: int = 0) -> HTTPResponse:
        self.connection.request("GET", self.paths[index])
        return self.connection.getresponse()


@pytest.fixture
def client(portal: EmbeddedPortal, asker: Asker) -> Iterator[Client]:
    plain = Encoding(block_size=100, codec=Codec.NONE, encrypted=False)
    item = portal.namespace.create(portal.namespace.create_folder("F"), "file", CONTENT, encoding=plain)
    client = Client(portal, asker.urls(item.file.file_id))
    with contextlib.closing(client.connection):
        yield client


def struck(client: Client, count: int) -> list[int]:
    """Which of so many requests were answered 500, counted from 1."""
    answers = []
    for number in range(1, count + 1):
        answer = client.get()
        answer.read()
        answers += [number] if answer.status == 500 else []
    return answers


def test_every_nth_and_the_first_ones(client: Client) -> None:
    plan = client.plan(Status(kind="block", status=500, every=3))
    assert struck(client, 7) == [3, 6]
    assert plan.injected == {"block status": 2}
    client.plan(Status(kind="block", status=500, first=2))
    assert struck(client, 4) == [1, 2]


def test_chance_is_the_same_for_the_same_seed(client: Client) -> None:
    def strikes(seed: int) -> list[int]:
        client.plan(Status(kind="block", status=500, probability=0.5), seed=seed)
        return struck(client, 40)

    assert 5 < len(strikes(1)) < 35
    assert strikes(1) == strikes(1) != strikes(2)


def test_a_schedule(client: Client) -> None:
    seconds = iter([10.0, 14.9, 15.0, 19.9, 20.0])  # the plan begins at the first
    client.plan(Status(kind="block", status=500, start=5, stop=10), clock=lambda: next(seconds))
    assert struck(client, 4) == [2, 3]


def test_kinds_and_paths(client: Client, asker: Asker) -> None:
    def statuses() -> list[int]:
        block = client.get()
        block.read()
        return [block.status, asker.metadata("list", {"folder_ids": []}).status_code, asker.login().status_code]

    for kind, path, expected in [
        ("block", "*", [500, 200, 200]),
        ("portal", "*", [200, 500, 500]),
        ("any", "*", [500, 500, 500]),
        (("list", "block"), "*", [500, 500, 200]),
        ("any", "*/metadata/*", [200, 500, 200]),
        ("any", "/blocks/*-1", [200, 200, 200]),
    ]:
        client.plan(Status(kind=kind, path=path, status=500))  # type: ignore[arg-type]
        assert statuses() == expected, (kind, path)


def test_the_first_rule_whose_turn_it_is_strikes_alone(client: Client) -> None:
    plan = client.plan(
        Status(kind="block", name="second", status=500, every=2), Status(kind="any", name="rest", status=429)
    )
    assert struck(client, 4) == [2, 4]
    assert plan.injected == {"second": 2, "rest": 2}


def test_a_hook_comes_first_and_a_refusal_is_not_altered(client: Client) -> None:
    plan = client.plan(Corrupt(kind="block"))
    client.portal.faults.storage = lambda kind, request: injections.Response("hook")
    assert client.get().read() == b"hook"
    client.portal.faults.storage = None
    client.portal.expire_urls()
    answer = client.get()
    assert (answer.status, answer.read()[:12]) == (403, b"AccessDenied")
    assert plan.injected == {}


def test_delay_and_status(client: Client) -> None:
    client.plan(Delay(kind="block", seconds=0.01), Status(kind="block", status=500))
    assert client.get().read() == CONTENT[:100]
    client.plan(Status(kind="block", status=429, retry_after=7, body="<html>", content_type="text/html"))
    answer = client.get()
    assert (answer.status, answer.headers["Retry-After"], answer.read()) == (429, "7", b"<html>")
    assert answer.headers["Content-Type"].startswith("text/html")


def test_redirect(client: Client) -> None:
    client.plan(Redirect(kind="block", location="http://elsewhere/x", status=307))
    answer = client.get()
    assert (answer.status, answer.headers["Location"]) == (307, "http://elsewhere/x")


def test_drop(client: Client) -> None:
    client.plan(Drop(kind="block"))
    with pytest.raises(ConnectionResetError):
        client.get()


def test_hang(client: Client) -> None:
    client.plan(Hang(kind="block"))
    client.hurry()
    with pytest.raises(TimeoutError):
        client.get()


@pytest.mark.parametrize("after", [0, 1, 60])
def test_stall_at_a_byte(client: Client, after: int) -> None:
    client.plan(Stall(kind="block", after=after))
    client.hurry()
    answer = client.get()
    assert answer.headers["Content-Length"] == "100"
    assert answer.read(after) == CONTENT[:after]
    with pytest.raises(TimeoutError):
        answer.read(1)


def test_truncate(client: Client) -> None:
    client.plan(Truncate(kind="block", after=60))
    with pytest.raises(IncompleteRead) as cut:
        client.get().read()
    assert cut.value.partial == CONTENT[:60]
    assert cut.value.expected == 40


def test_truncate_anywhere(client: Client) -> None:
    client.plan(Truncate(kind="block"))
    stops = set()
    for _ in range(10):
        client.connection.close()
        with pytest.raises((IncompleteRead, ConnectionError)) as cut:
            client.get().read()
        stops.add(len(getattr(cut.value, "partial", b"")))
    assert len(stops) > 5
    assert max(stops) < 100


def test_corrupt_leaves_the_checksum_of_the_true_block(client: Client) -> None:
    client.portal.store.checksums = True
    client.plan(Corrupt(kind="block", at=98, bytes=5))
    answer = client.get()
    assert answer.read() == CONTENT[:98] + bytes([98 ^ 255, 99 ^ 255])
    assert base64.b64decode(answer.headers["Content-MD5"]) == hashlib.md5(CONTENT[:100], usedforsecurity=False).digest()


def test_drip(client: Client) -> None:
    client.plan(Drip(kind="block", rate=1000))
    answer = client.get()
    pieces = []
    while piece := answer.read1(1000):
        pieces.append(piece)
    assert b"".join(pieces) == CONTENT[:100]
    client.plan(Drip(kind="block", rate=1))
    client.hurry()
    with pytest.raises(TimeoutError):
        client.get().read()


@pytest.mark.parametrize("by", [-200, -30, 30])
def test_resize(client: Client, by: int) -> None:
    client.plan(Resize(kind="block", by=by))
    answer = client.get()
    assert answer.headers["Content-Length"] == str(max(0, 100 + by))
    assert answer.read() == (CONTENT[:100] + bytes(30))[: max(0, 100 + by)]


def test_a_length_that_announces_too_much(client: Client) -> None:
    client.plan(Length(kind="block", by=30))
    with pytest.raises(IncompleteRead) as cut:
        client.get().read()
    assert (cut.value.partial, cut.value.expected) == (CONTENT[:100], 30)


def test_a_length_that_announces_too_little(client: Client) -> None:
    client.plan(Length(kind="block", by=-30))
    with socket.create_connection((client.portal.host, client.connection.port), timeout=60) as connection:
        connection.sendall(f"GET {client.paths[0]} HTTP/1.1\r\nHost: storage\r\n\r\n".encode())
        received = b""
        while not received.endswith(CONTENT[:100]):
            received += connection.recv(1000)
    assert b"content-length: 70" in received


def test_content_type(client: Client) -> None:
    client.plan(ContentType(kind="block", content_type="text/html"))
    answer = client.get()
    assert (answer.headers.get_all("Content-Type"), answer.read()) == (["text/html"], CONTENT[:100])


def test_swap(client: Client) -> None:
    plan = client.plan(Swap(kind="block"))
    assert client.get(0).read() == CONTENT[:100]  # there is no other yet
    assert client.get(1).read() == CONTENT[:100]
    assert client.get(0).read() == CONTENT[100:]
    assert plan.injected == {"block swap": 2}


def test_lists_are_altered_as_blocks_are(client: Client, asker: Asker) -> None:
    client.plan(Resize(kind="list", by=-1))
    with pytest.raises(json.JSONDecodeError):
        asker.metadata("list", {"folder_ids": []}).json()


def test_what_hangs_does_not_hold_up_the_portals_end(portal: EmbeddedPortal) -> None:
    portal.faults.plan = FaultPlan([Delay(kind="session", seconds=3600), Hang(kind="block"), Stall(kind="login")])
    for url in (f"{portal.storage_url}/blocks/0/x", f"{portal.url}/admin/api/version"):
        with pytest.raises(httpx.ReadTimeout):
            httpx.get(url, timeout=PATIENCE)
    form = {"j_username": portal.username, "j_password": portal.password}
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{portal.url}/admin/api/login", data=form, timeout=PATIENCE)


def test_the_manual_has_every_fault_and_kind_and_a_plan_that_can_be_used(tmp_path: Path) -> None:
    manual = (Path(__file__).parents[2] / "man/cterafs.1").read_text().partition(".Sh FAULTS")[2].partition(".Sh ")[0]
    file = tmp_path / "faults.toml"
    file.write_text(manual.partition(".Bd -literal -offset Ds\n")[2].partition(".Ed")[0])
    assert isinstance(FaultPlan.load(file).choose("login", "/"), Delay)
    named = {word for line in manual.splitlines() if line.startswith((".Cm", ".It")) for word in line.split()}
    assert set(get_args(injections.Kind)) <= named
    for rule in get_args(AnyRule):
        assert rule.__struct_config__.tag in named
        assert all(re.search(rf"^\.(It )?Va .*\b{field}\b", manual, re.M) for field in rule.__struct_encode_fields__)


RULES = """
seed = 3
[[rule]]
fault = "status"
kind = ["list", "block"]
status = 503
retry_after = 1
every = 2
from = 1.5
to = 60
[[rule]]
fault = "stall"
kind = "block"
name = "stalled"
after = "anywhere"
"""


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[[rule", "not TOML"),
        ("\xff", "not TOML"),
        ("", "`rule`"),
        ("rules = 1", "`rules`"),
        (RULES.replace("stall", "stale"), "rule 2, fault: .*'stale'"),
        (RULES.replace('kind = "block"', ""), "rule 2: .*`kind`"),
        (RULES.replace('kind = "block"', 'kind = "blok"'), "rule 2, kind: .*blok"),
        (RULES.replace("every = 2", "every = 0"), "rule 1, every: "),
        (RULES.replace("every = 2", "evry = 2"), "rule 1: .*`evry`"),
        (RULES.replace("to = 60", "to = 1"), "rule 1: `to` has to be after `from`"),
        (RULES.replace('"anywhere"', "-1"), "rule 2, after: "),
    ],
)
def test_a_file_that_is_no_plan(tmp_path: Path, text: str, complaint: str) -> None:
    file = tmp_path / "faults.toml"
    file.write_text(text, encoding="latin-1")
    with pytest.raises(BadPlan, match=complaint) as bad:
        FaultPlan.load(file)
    assert "\n" not in str(bad.value)


def portal_command(file: Path, *arguments: str) -> list[str]:
    command = [sys.executable, "-m", "cterafs.cli.main", "portal", "--synthetic", "FILES=2"]
    return [*command, "--listen", "127.0.0.1:0", "--faults", str(file), *arguments]


def test_the_command_injects_what_the_file_says_and_counts_it(tmp_path: Path) -> None:
    file = tmp_path / "faults.toml"
    file.write_text(RULES.replace("from = 1.5", "from = 0").replace('["list", "block"]', '"login"'))
    with subprocess.Popen(portal_command(file, "--checksums"), stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["url"]
        answers = [httpx.post(f"{url}/admin/api/login") for _ in range(4)]
        process.send_signal(signal.SIGTERM)
        output = process.communicate(timeout=10)[0]
    assert [answer.status_code for answer in answers] == [403, 503, 403, 503]
    assert answers[1].headers["Retry-After"] == "1"
    assert (process.returncode, json.loads(output)) == (0, {"faults": {"login status": 2}})


@pytest.mark.parametrize("text", [None, "[[rule]]\nfault = 'dealy'\nkind = 'block'\n"])
def test_the_command_refuses_a_file_with_one_line(tmp_path: Path, text: str | None) -> None:
    file = tmp_path / "faults.toml"
    if text is not None:
        file.write_text(text)
    done = subprocess.run(portal_command(file), capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert str(file) in done.stderr
