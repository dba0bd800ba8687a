"""The soak, for some seconds; and that it finds what is wrong."""

import errno
import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from cterafs.direct.landing import UNDIVIDED

REPOSITORY = Path(__file__).parents[2]
SECONDS = 2
SHORT = 100 + UNDIVIDED + 1
"""Where the block begins that is short."""


@pytest.fixture
def soaking(monkeypatch):
    monkeypatch.syspath_prepend(REPOSITORY / "scripts")
    return lambda module: importlib.import_module(f"soaking.{module}")


def test_a_short_soak_finds_nothing_wrong(soaking, tmp_path):
    command = [sys.executable, "-m", "soaking", f"--minutes={SECONDS / 60}", f"--output={tmp_path}"]
    path = f"{REPOSITORY / 'scripts'}:{REPOSITORY}"
    done = subprocess.run(
        [*command, f"--scratch={tmp_path}"],
        env={"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "PYTHONPATH": path},
        cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    found = json.loads((tmp_path / "soak.json").read_text())
    assert found["bytes"] > 1_000_000
    assert len(found["faults"]) == 46
    assert found["faults"].keys() > soaking("faults").SEEM_REPLACED
    assert found["changes"] > 0
    assert "wrong: 0" in done.stdout
    assert not (tmp_path / "mnt").exists()


@pytest.fixture
def ledger(soaking):
    """Of a soak with one fault, in which a block without a checksum, and a long and a short one that have one, were
    sent with wrong bytes."""
    faults = soaking("faults")
    damages = [
        faults.Damage(11, 7, 0, 100, checked=False),
        faults.Damage(11, 7, 100, SHORT, checked=True),
        faults.Damage(11, 7, SHORT, SHORT + UNDIVIDED, checked=True),
    ]
    return soaking("ledger").Ledger([faults.Span("storage is away", 10, 20)], damages, grace=5)


@pytest.fixture
def incident(soaking):
    """One that began, and whose file was opened, at a moment."""

    def make(kind, at, **rest):
        return soaking("reader").Incident(kind, "read", rest.pop("path", "Stable/1"), at, at + 1, at, **rest)

    return make


@pytest.mark.parametrize(
    ("kind", "at", "rest"),
    [
        ("error", 15, {"errno": errno.EIO}),
        ("error", 24, {"errno": errno.ETIMEDOUT}),
        ("error", 99, {"errno": errno.ENOENT, "path": "Changing/2"}),
        ("bytes", 99, {"key": 7, "offset": 10, "length": 10}),
        ("bytes", 12, {"key": 7, "offset": 150, "length": 10}),
    ],
)
def test_what_faults_and_changes_explain_is_not_wrong(ledger, incident, kind, at, rest):
    ledger.judge(incident(kind, at, **rest))
    assert ledger.wrongs == 0
    assert ledger.expected.total() + ledger.unseen == 1


@pytest.mark.parametrize(
    ("kind", "at", "rest"),
    [
        ("error", 26, {"errno": errno.EIO}),
        ("error", 5, {"errno": errno.EIO}),
        ("error", 15, {"errno": errno.ENOENT}),
        ("error", 15, {"errno": errno.EFBIG}),
        ("bytes", 5, {"key": 7, "offset": 10, "length": 10}),
        ("bytes", 15, {"key": 8, "offset": 10, "length": 10}),
        ("bytes", 12, {"key": 7, "offset": SHORT, "length": 10}),
        ("bytes", 15, {"key": 7, "offset": SHORT + UNDIVIDED, "length": 10}),
        ("bytes", 17, {"key": 7, "offset": 150, "length": 10}),
        ("bytes", 17, {"key": 7, "offset": 10, "length": 0}),
        ("late", 15, {}),
        ("version", 15, {}),
    ],
)
def test_everything_else_is_wrong(ledger, incident, kind, at, rest):
    ledger.judge(incident(kind, at, **rest))
    assert ledger.wrongs == len(ledger.wrong) == 1


@pytest.mark.parametrize(
    ("fault", "wrongs"),
    [
        ("directio: another's", 0),
        ("block: HTTP 404", 0),
        ("directio: another length", 1),
        ("directio: garbled", 1),
        ("directio: HTTP 400", 1),
        ("block: HTTP 403", 1),
    ],
)
def test_a_file_cannot_be_opened_where_it_seems_to_be_replaced(soaking, fault, wrongs):
    ledger = soaking("ledger").Ledger([soaking("faults").Span(fault, 10, 20)], [], grace=5)
    ledger.judge(soaking("reader").Incident("error", "open", "Stable/1", 15, 16, errno=errno.ESTALE))
    assert (ledger.wrongs, ledger.expected.total()) == (wrongs, 1 - wrongs)


def test_any_range_of_a_version_is_computed(soaking):
    version = soaking("content").Version(5)
    whole = version.read(0, version.size)
    assert len(whole) == version.size
    for offset, length in ((0, 1), (4095, 2), (5000, 10_000), (version.size - 3, 100), (version.size, 1)):
        assert version.read(offset, length) == whole[offset : offset + length]
    assert soaking("content").Version(8).read(0, 100) != whole[:100]
