"""The namespace that is computed: all of it is there, once, the same at every start, and changes are told as always."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from asking import Asker

from cterafs.demo.encoder import Codec, Encoding
from cterafs.demo.inventory import UnknownObject
from cterafs.demo.server import EmbeddedPortal
from cterafs.demo.synthetic import tree as synthetic
from cterafs.demo.synthetic.churn import Churn
from cterafs.demo.synthetic.shape import Plan, Shape
from cterafs.demo.synthetic.tree import SyntheticNamespace

SHAPE = Shape(files=10_000, folders=3, fanout=15, depth=4, largest=1_500)
MIB = 1 << 20


@pytest.fixture
def namespace() -> SyntheticNamespace:
    return SyntheticNamespace(SHAPE, Encoding(codec=Codec.NONE, encrypted=False))


@pytest.fixture
def asker(namespace: SyntheticNamespace) -> Iterator[Asker]:
    with EmbeddedPortal(inventory=namespace) as portal, Asker(portal) as asker:
        asker.login()
        yield asker


def entries(namespace: SyntheticNamespace, *folders: int) -> list[dict[str, Any]]:
    """The whole listing."""
    found, place = [], 0
    while place is not None:
        page, place = namespace.part(place, 777, folders)
        found += [{name: getattr(entry, name) for name in entry.__struct_fields__} for entry in page]
    return found


def by_guid(listed: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {entry["guid"]: entry for entry in listed}


def depth(entry: dict[str, Any], known: dict[str, dict[str, Any]]) -> int:
    steps = 0
    while entry["parent_guid"]:
        entry = known[entry["parent_guid"]]
        steps += 1
    return steps


@pytest.mark.parametrize(
    "shape",
    [
        SHAPE,
        Shape(files=10_000, order="scattered"),
        Shape(files=3_000, fanout=1, largest=0),
        Shape(files=500, folders=40, depth=1),
        Shape(files=1),
        Shape(files=0, folders=1),
        Shape(files=100, largest=100),
    ],
    ids=repr,
)
def test_every_object_is_listed_once_and_lies_where_its_folder_is(shape: Shape) -> None:
    listed = entries(SyntheticNamespace(shape))
    known = by_guid(listed)
    files = [entry for entry in listed if entry["type"] == "file"]
    assert len(files) == shape.files
    assert len(known) == len(listed)
    assert len({entry["id"] for entry in files}) == len(files)
    assert sum(entry["parent_guid"] is None for entry in listed) == shape.folders
    for entry in listed:
        parent = known[entry["parent_guid"]] if entry["parent_guid"] else entry
        assert parent["type"] == "folder"
        assert parent["folder_id"] == entry["folder_id"]
    assert len({(entry["parent_guid"], entry["name"]) for entry in listed}) == len(listed)
    assert max(depth(entry, known) for entry in listed) <= shape.depth + 1
    crowds = Counter(entry["parent_guid"] for entry in files)
    assert not shape.largest or crowds.most_common(1)[0][1] == shape.largest


def test_parents_come_first_or_anywhere() -> None:
    def late(listed: list[dict[str, Any]]) -> int:
        seen: set[str | None] = {None}
        count = 0
        for entry in listed:
            count += entry["parent_guid"] not in seen
            seen.add(entry["guid"])
        return count

    listed = entries(SyntheticNamespace(SHAPE))
    scattered = entries(SyntheticNamespace(Shape(files=10_000, order="scattered")))
    assert late(listed) == 0
    assert late(scattered) > 1_000


def test_a_later_start_gives_the_same_and_another_seed_does_not() -> None:
    listed = entries(SyntheticNamespace(SHAPE))
    assert entries(SyntheticNamespace(SHAPE)) == listed
    other = entries(SyntheticNamespace(Shape(files=10_000, seed=2)))
    assert not {entry["guid"] for entry in listed} & {entry["guid"] for entry in other}


def test_names_are_as_varied_as_real_ones() -> None:
    names = [entry["name"] for entry in entries(SyntheticNamespace(SHAPE))]
    assert any(not name.isascii() for name in names)
    assert max(len(name.encode()) for name in names) > 80
    assert len({name.rpartition(".")[2] for name in names if "." in name}) > 10
    assert all(0 < len(name.encode()) < 256 and "/" not in name for name in names)


def test_a_client_is_told_all_of_it(asker: Asker, namespace: SyntheticNamespace) -> None:
    listed, _ = asker.everything()
    assert len(listed) == namespace.plan.total
    assert len(asker.page()["entries"]) == 2000
    dice = random.Random(1)
    known = by_guid(listed)
    for entry in dice.sample(listed, 20):
        chain = asker.metadata("ancestors", {"folder_id": entry["folder_id"], "guid": entry["guid"]}).json()
        expected = [entry]
        while "parent_guid" in expected[0]:
            expected.insert(0, known[expected[0]["parent_guid"]])
        assert chain == expected


def test_one_cloud_folder_is_listed_alone(namespace: SyntheticNamespace) -> None:
    listed = entries(namespace)
    for folder in namespace.folders:
        assert entries(namespace, folder.id) == [entry for entry in listed if entry["folder_id"] == folder.id]


@pytest.mark.parametrize("guid", ["", "x:1", "{0}:0", "{0}:99999999", "{0}:-1", "{0}:1x", "{0}:²"])
def test_an_object_that_is_none_has_no_ancestors(namespace: SyntheticNamespace, guid: str) -> None:
    uuid = namespace.entry(1).guid.partition(":")[0]
    with pytest.raises(UnknownObject):
        namespace.ancestors(1, guid.format(uuid))


def test_contents_come_by_direct_io_and_are_the_same_at_each_reading(
    asker: Asker, namespace: SyntheticNamespace
) -> None:
    number = namespace.create(1, "long", 5 * MIB + 123)
    for file_id in (namespace.entry(number).id, namespace.entry(namespace.plan.files[77]).id):
        version = namespace.by_file_id(file_id)
        whole = version.content.read(0, version.size)
        assert len(whole) == version.size
        assert b"".join(httpx.get(url).content for url in asker.urls(file_id)) == whole
        dice = random.Random(3)
        for _ in range(50):
            offset = dice.randrange(version.size)
            length = dice.randrange(version.size - offset)
            assert version.content.read(offset, length) == whole[offset : offset + length]


def test_contents_differ_between_files_versions_and_places(namespace: SyntheticNamespace) -> None:
    number = namespace.create(1, "file", 4 * MIB)
    parts = set()
    for _ in range(3):
        content = namespace.by_file_id(namespace.entry(number).id).content
        parts |= {content.read(place * MIB, 100) for place in range(4)}
        namespace.write(number, 4 * MIB)
    assert len(parts) == 12


def test_what_changes_is_told_and_listed(asker: Asker, namespace: SyntheticNamespace) -> None:
    _, cursor = asker.everything()
    first, second, third = namespace.plan.files[:3]
    home = namespace.plan.parent(first)
    folder = namespace.plan.folder(second)
    before = {number: namespace.entry(number) for number in (first, second, third)}
    with namespace.batch():
        made = namespace.create(home, "made", 10)
        namespace.write(first, 20)
        namespace.move(second, folder, "moved")
        namespace.delete(third)
    told, cursor = asker.next_changes(cursor)
    assert [(entry["name"], entry["deleted"]) for entry in told] == [
        ("made", False),
        (before[first].name, False),
        ("moved", False),
        (before[third].name, True),
    ]
    assert (told[1]["guid"], told[1]["size"]) == (before[first].guid, 20)
    assert told[1]["id"] != before[first].id
    assert told[1]["gvsn"] > before[first].gvsn
    assert (told[2]["parent_guid"], told[2]["id"]) == (namespace.entry(folder).guid, before[second].id)
    listed = by_guid(asker.everything()[0])
    assert len(listed) == namespace.plan.total
    assert before[third].guid not in listed
    assert [listed[entry["guid"]] for entry in told[:3]] == told[:3]
    namespace.delete(made)
    assert asker.next_changes(cursor)[0][0]["deleted"]
    assert told[0]["guid"] not in by_guid(asker.everything()[0])


def test_old_versions_stay_for_whoever_reads_them_and_go_when_there_are_many(
    namespace: SyntheticNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(synthetic, "RETIRED", 2)
    number = namespace.create(1, "file", 100)
    ids = [namespace.entry(number).id]
    contents = [namespace.by_file_id(ids[0]).content.read(0, 100)]
    for size in (200, 300, 400):
        namespace.write(number, size)
        ids.append(namespace.entry(number).id)
        contents.append(namespace.by_file_id(ids[-1]).content.read(0, size))
    with pytest.raises(UnknownObject):
        namespace.by_file_id(ids[0])
    versions = [namespace.by_file_id(each) for each in ids[1:]]
    assert [version.content.read(0, version.size) for version in versions] == contents[1:]


def test_a_deleted_file_is_gone_but_its_blocks_stay_for_a_while(namespace: SyntheticNamespace) -> None:
    for number in (namespace.create(1, "file", 100), namespace.plan.files[5]):
        entry = namespace.entry(number)
        namespace.delete(number)
        with pytest.raises(UnknownObject):
            namespace.by_file_id(entry.id)
        assert namespace.version(entry.id) is not None
        with pytest.raises(UnknownObject):
            namespace.write(number, 1)
        with pytest.raises(UnknownObject):
            namespace.ancestors(entry.folder_id, entry.guid)


def test_impossible_changes_are_refused(namespace: SyntheticNamespace) -> None:
    plan = namespace.plan
    with pytest.raises(UnknownObject):
        namespace.create(plan.files[0], "below a file", 1)
    with pytest.raises(UnknownObject):
        namespace.write(plan.directories[0], 1)
    elsewhere = next(root for root in plan.roots if root != plan.folder(plan.files[0]))
    with pytest.raises(ValueError, match="within their cloud folder"):
        namespace.move(plan.files[0], elsewhere, "moved")


@pytest.mark.parametrize("shape", [SHAPE, Shape(files=0, folders=1)], ids=["files", "none"])
def test_the_events_of_a_churn_lead_from_one_listing_to_the_next(shape: Shape, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cterafs.demo.synthetic.churn.MADE", 50)
    namespace = SyntheticNamespace(shape)
    known = by_guid(entries(namespace))
    _, cursor, more = namespace.feed.page((), None, 100_000)
    assert not more
    churn = Churn(namespace, 0)
    for _ in range(3_000):
        churn.step()
    told, _, more = namespace.feed.page((), cursor, 100_000)
    assert (len(told), more) == (3_000, False)
    for entry in told:
        known.pop(entry.guid, None)
        if not entry.deleted:
            known[entry.guid] = {name: getattr(entry, name) for name in entry.__struct_fields__}
    assert known == by_guid(entries(namespace))
    assert len({(entry["parent_guid"], entry["name"]) for entry in known.values()}) == len(known)
    assert any(entry.deleted for entry in told)


def test_a_churn_keeps_its_rate_until_it_is_stopped(namespace: SyntheticNamespace) -> None:
    _, cursor, _ = namespace.feed.page((), None, 100_000)

    def told() -> int:
        return len(namespace.feed.page((), cursor, 1_000_000)[0])

    with Churn(namespace, 5_000):
        assert namespace.feed.wait_until(lambda: told() > 500, 30)
    after = told()
    assert not namespace.feed.wait_until(lambda: told() > after, 0.1)


def test_a_large_plan_is_arithmetic() -> None:
    plan = Plan(Shape(files=100_000_000))
    number = plan.files[87_654_321]
    chain = [number]
    while plan.parent(chain[-1]):
        chain.append(plan.parent(chain[-1]))
    assert len(chain) <= 10
    assert {plan.folder(each) for each in chain} == {chain[-1]}


def test_options_are_read() -> None:
    assert Shape.parse("") == Shape()
    assert Shape.parse("FILES=10000,ORDER=scattered,RATE=5") == Shape(files=10_000, order="scattered", rate=5)
    assert Shape(files=10_000).largest == 1_000


@pytest.mark.parametrize(
    "text",
    ["FILE=1", "FILES", "FILES=-1", "FILES=1e9", "FILES=999999999", "ORDER=none", "FOLDERS=0", "LARGEST=2,FILES=1"],
)
def test_options_that_make_no_sense_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"known are|not a number|must lie"):
        Shape.parse(text)
