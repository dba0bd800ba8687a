"""Where the objects of events lie, with a portal that is played by hand."""

from collections.abc import Sequence

import pytest
from trio.testing import MockClock

from cterafs.cli import eventpaths
from cterafs.cli.eventpaths import EventPaths
from cterafs.errors import AncestorsError, AuthenticationError, PortalUnavailable
from cterafs.model import Event

pytestmark = pytest.mark.trio


def directory(guid: str, parent: str | None, name: str = "", *, deleted: bool = False) -> Event:
    return Event(guid=guid, name=name or guid, is_dir=True, parent_guid=parent, folder_id=7, deleted=deleted)


def file(guid: str, parent: str) -> Event:
    return Event(guid=guid, name=guid, is_dir=False, parent_guid=parent, folder_id=7)


class Portal:
    """Knows the ancestors of some objects; fails with `failures` first."""

    def __init__(self, *chains: Sequence[Event]) -> None:
        self.chains = {chain[-1].guid: chain for chain in chains}
        self.asked: list[str] = []
        self.failures: list[Exception] = []

    async def __call__(self, folder_id: int, guid: str) -> Sequence[Event]:
        assert folder_id == 7
        self.asked.append(guid)
        if self.failures:
            raise self.failures.pop(0)
        if guid not in self.chains:
            raise AncestorsError("unknown")
        return self.chains[guid]


CHAIN = [directory("root", None, "Docs"), directory("a", "root"), directory("b", "a")]


async def test_what_is_unknown_is_asked_for_once() -> None:
    portal = Portal(CHAIN)
    paths = EventPaths(portal, None)
    assert await paths.of(file("x", "b")) == "/Docs/a/b/x"
    assert await paths.of(file("y", "a")) == "/Docs/a/y"
    assert portal.asked == ["b"]
    assert await paths.of(file("z", "nowhere")) is None
    assert await paths.of(file("z", "nowhere")) is None
    assert portal.asked == ["b", "nowhere", "z"]


async def test_what_was_unknown_is_known_once_it_is_told() -> None:
    paths = EventPaths(Portal(), None)
    assert await paths.of(file("x", "a")) is None
    paths.learn(CHAIN[:2])
    assert await paths.of(file("x", "a")) == "/Docs/a/x"


async def test_what_an_event_told_is_not_replaced_by_what_is_asked_for() -> None:
    portal = Portal(CHAIN)
    paths = EventPaths(portal, None)
    paths.learn([directory("a", "root", "moved")])
    assert await paths.of(file("x", "b")) == "/Docs/moved/b/x"


async def test_a_deleted_directory_still_tells_where_its_contents_were() -> None:
    paths = EventPaths(Portal(), None)
    paths.learn([*CHAIN[:2], directory("b", "a", deleted=True)])
    assert await paths.of(file("x", "b")) == "/Docs/a/b/x"


async def test_what_does_not_fit_into_memory_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eventpaths, "DIRECTORIES", 3)
    portal = Portal(CHAIN)
    paths = EventPaths(portal, None)
    paths.learn([*CHAIN, *(directory(f"d{number}", "root") for number in range(3))])
    assert await paths.of(file("x", "b")) == "/Docs/a/b/x"
    assert portal.asked == ["b"]


async def test_directories_in_a_circle_have_no_path() -> None:
    paths = EventPaths(Portal(), None)
    paths.learn([directory("a", "b"), directory("b", "a")])
    assert await paths.of(file("x", "a")) is None
    assert await paths.of(directory("a", "b")) is None


async def test_endless_directories_have_no_path(monkeypatch: pytest.MonkeyPatch) -> None:
    paths = EventPaths(Portal(), None)
    count = eventpaths.DEPTH + 10
    paths.learn([directory("0", None), *(directory(str(n), str(n - 1)) for n in range(1, count))])
    assert await paths.of(file("x", str(count - 1))) is None
    assert await paths.of(file("x", "100")) is not None


async def test_a_portal_that_restarts_is_waited_for(autojump_clock: MockClock) -> None:
    portal = Portal(CHAIN)
    portal.failures = [PortalUnavailable("restarting") for _ in range(5)]
    assert await EventPaths(portal, None).of(file("x", "b")) == "/Docs/a/b/x"
    portal.failures = [PortalUnavailable("gone") for _ in range(6)]
    with pytest.raises(PortalUnavailable):
        await EventPaths(portal, None).of(file("x", "b"))


async def test_what_a_repetition_does_not_mend_is_raised() -> None:
    portal = Portal(CHAIN)
    portal.failures = [AuthenticationError("not allowed")]
    with pytest.raises(AuthenticationError):
        await EventPaths(portal, None).of(file("x", "b"))
