"""A part is taken up only where it is certainly the beginning of what is wanted."""

import os

import pytest

from cterafs.cli import partial as module
from cterafs.cli.partial import Mark, Partial, block_digest
from cterafs.cli.progress import Progress, readable
from cterafs.errors import StateError

IDENTITY = {"file_id": 7, "size": 30, "start": 0, "stop": 30}
DIGESTS = [block_digest(f"blocks/{number}", 10) for number in range(3)]


@pytest.fixture
def destination(tmp_path):
    return tmp_path / "file"


@pytest.fixture
def begun(destination):
    with Partial(destination, IDENTITY) as part:
        part.keep(0)
        part.write(b"a" * 10, DIGESTS[0])
        part.write(b"b" * 10, DIGESTS[1])
    return destination


def _journal(destination):
    return destination.with_name("file.part.blocks")


def _part(destination):
    return destination.with_name("file.part")


def test_a_complete_part_becomes_the_file(begun):
    with Partial(begun, IDENTITY) as part:
        assert part.marks == [Mark(10, DIGESTS[0]), Mark(20, DIGESTS[1])]
        assert part.keep(2) == 20
        part.write(b"c" * 10, DIGESTS[2])
        part.finish()
    assert begun.read_bytes() == b"a" * 10 + b"b" * 10 + b"c" * 10
    assert [file.name for file in begun.parent.iterdir()] == ["file"]


def test_nothing_is_at_the_destination_before_it_is_complete(begun):
    assert not begun.exists()


def test_what_is_not_kept_is_cut_off(begun):
    with Partial(begun, IDENTITY) as part:
        assert part.keep(1) == 10
    assert _part(begun).read_bytes() == b"a" * 10
    with Partial(begun, IDENTITY) as part:
        assert part.marks == [Mark(10, DIGESTS[0])]


@pytest.mark.parametrize("change", [{"file_id": 8}, {"size": 31}, {"start": 1}, {"stop": 29}])
def test_a_part_of_anything_else_is_dropped(begun, change):
    with Partial(begun, IDENTITY | change) as part:
        assert part.marks == []
        part.keep(0)
    assert _part(begun).read_bytes() == b""


@pytest.mark.parametrize(
    ("spoil", "left"),
    [
        (lambda journal: journal.unlink(), 0),
        (lambda journal: journal.write_bytes(b""), 0),
        (lambda journal: journal.write_bytes(b"\xff\x00"), 0),
        (lambda journal: journal.write_text(journal.read_text().replace("20 ", "x ")), 1),
        (lambda journal: journal.write_text(journal.read_text().replace("20 ", "21 ")), 1),
        (lambda journal: journal.write_text(journal.read_text().replace("20 ", "10 ")), 1),
        (lambda journal: journal.write_text(journal.read_text()[:-2]), 1),
        (lambda journal: os.truncate(journal.with_name("file.part"), 19), 1),
    ],
)
def test_only_what_the_journal_vouches_for_counts(begun, spoil, left):
    spoil(_journal(begun))
    with Partial(begun, IDENTITY) as part:
        assert len(part.marks) == left


def test_a_block_counts_once_the_disk_has_it(destination, monkeypatch):
    monkeypatch.setattr(module, "SYNC_AFTER", 20)
    with Partial(destination, IDENTITY) as part:
        part.keep(0)
        part.write(b"a" * 10, DIGESTS[0])
        assert len(_journal(destination).read_text().splitlines()) == 1
        part.write(b"b" * 10, DIGESTS[1])
        assert len(_journal(destination).read_text().splitlines()) == 3
        assert _part(destination).stat().st_size == 20


def test_only_one_process_at_a_time(begun):
    with Partial(begun, IDENTITY), pytest.raises(StateError, match="another process"):
        Partial(begun, IDENTITY)


def test_a_part_that_was_finished_in_between_is_left_alone(begun, monkeypatch):
    """Its owner renames it after we opened it, and before we lock it."""
    lock = module.fcntl.flock

    def finish_then_lock(handle, operation):
        _part(begun).rename(begun)
        lock(handle, operation)

    monkeypatch.setattr(module.fcntl, "flock", finish_then_lock)
    with pytest.raises(StateError):
        Partial(begun, IDENTITY)
    assert begun.read_bytes() == b"a" * 10 + b"b" * 10


def test_a_link_in_the_place_of_the_part_is_not_followed(destination, tmp_path):
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    _part(destination).symlink_to(victim)
    with pytest.raises(OSError, match=r"file\.part"):
        Partial(destination, IDENTITY)
    assert victim.read_bytes() == b"precious"


def test_an_error_of_the_disk_names_the_file(destination, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.os, "fdatasync", full)
    part = Partial(destination, IDENTITY)
    part.keep(0)
    part.write(b"a", DIGESTS[0])
    with pytest.raises(OSError, match="No space left on device") as caught:
        part.finish()
    with pytest.raises(OSError, match="No space left on device"):
        part.close()
    assert caught.value.filename == str(_part(destination))
    assert not destination.exists()


def test_the_digest_tells_place_and_length_apart():
    assert len({block_digest("a", 1), block_digest("a", 2), block_digest("b", 1)}) == 3


class _Terminal:
    def __init__(self, is_terminal):
        self.text = ""
        self.isatty = lambda: is_terminal

    def write(self, text):
        self.text += text

    def flush(self):
        pass


def test_progress_shows_on_a_terminal_only():
    terminal, file = _Terminal(True), _Terminal(False)
    for stream in (terminal, file):
        with Progress(2048, done=1024, stream=stream) as progress:
            progress.advance(1024)
    assert file.text == ""
    assert "100 %  2.0 KiB of 2.0 KiB" in terminal.text
    assert terminal.text.endswith("\n")


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (1 << 30, "1.0 GiB"), (1 << 50, "1024.0 TiB")]
)
def test_readable(count, text):
    assert readable(count) == text
