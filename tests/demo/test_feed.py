"""What the portal tells, in which order, and which cursors it takes."""

from __future__ import annotations

import threading

import pytest
from asking import Asker

from cterafs.demo.inventory import UnknownObject
from cterafs.demo.namespace import Namespace
from cterafs.demo.objects import Entry
from cterafs.demo.server import EmbeddedPortal


@pytest.fixture
def namespace(portal: EmbeddedPortal) -> Namespace:
    return portal.namespace


def test_the_namespace_comes_first_and_then_its_changes(asker: Asker, namespace: Namespace) -> None:
    folder = namespace.create_folder("F")
    old = namespace.create(folder, "old")
    page = asker.page(max_results=1)
    new = namespace.create(folder, "new")
    namespace.rename(old, "renamed")
    told = [(entry["guid"], entry["name"]) for entry in page["entries"]]
    while page["has_more"]:
        page = asker.page(page["cursor"], max_results=1)
        told += [(entry["guid"], entry["name"]) for entry in page["entries"]]
    assert told[0] == (folder.guid, "F")
    assert told[1:3] == [(old.guid, "renamed"), (new.guid, "new")]
    assert told[-1] == (old.guid, "renamed")


def test_each_change_is_told(asker: Asker, namespace: Namespace) -> None:
    folder = namespace.create_folder("F")
    directory = namespace.mkdir(folder, "d")
    file = namespace.create(folder, "f", b"1")
    _, cursor = asker.everything()
    before = file.file

    def changes() -> list[dict[str, object]]:
        nonlocal cursor
        entries, cursor = asker.next_changes(cursor)
        return entries

    namespace.write(file, b"12")
    (entry,) = changes()
    assert (entry["guid"], entry["size"]) == (file.guid, 2)
    assert entry["id"] != before.file_id
    assert entry["gvsn"] != str(before.gvsn)

    version = file.file
    namespace.move(file, directory, "g")
    (entry,) = changes()
    assert (entry["guid"], entry["name"], entry["parent_guid"]) == (file.guid, "g", directory.guid)
    assert (entry["id"], entry["gvsn"]) == (version.file_id, str(version.gvsn))

    namespace.set_acl(file, "O:BA")
    (entry,) = changes()
    assert (entry["acl"], entry["gvsn"]) == ("O:BA", str(version.gvsn))

    namespace.delete(directory)
    assert [(entry["guid"], entry["deleted"]) for entry in changes()] == [(directory.guid, True), (file.guid, True)]

    namespace.undelete(directory)
    assert [(entry["guid"], entry["deleted"]) for entry in changes()] == [(directory.guid, False), (file.guid, False)]
    assert namespace.find("F/d/g") is file


def test_what_was_deleted_before_is_not_listed(asker: Asker, namespace: Namespace) -> None:
    folder = namespace.create_folder("F")
    namespace.delete(namespace.create(folder, "f"))
    assert [entry["name"] for entry in asker.page()["entries"]] == ["F"]


def test_a_cursor_expires_with_the_changes_that_it_points_at(
    asker: Asker, namespace: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cterafs.demo.feed.LOG_LIMIT", 4)
    folder = namespace.create_folder("F")
    cursor = asker.page()["cursor"]
    for name in "abcd":
        recent = asker.page()["cursor"]
        namespace.rename(folder, name)
    assert asker.metadata("list", {"folder_ids": [], "cursor": cursor}).status_code == 400
    assert [entry["name"] for entry in asker.page(recent)["entries"]] == ["d"]


def test_a_test_can_wait_until_a_client_has_followed(asker: Asker, namespace: Namespace) -> None:
    namespace.create_folder("F")
    _, cursor = asker.everything()
    assert not namespace.feed.wait_until_followed(0)
    thread = threading.Thread(target=asker.longpoll, args=(cursor,))
    thread.start()
    assert namespace.feed.wait_until_followed(10)
    namespace.create_folder("G")
    assert not namespace.feed.wait_until_followed(0)
    thread.join()


def test_descendants_of_a_deleted_directory_may_be_left_out(asker: Asker, namespace: Namespace) -> None:
    namespace.tell_descendants = False
    folder = namespace.create_folder("F")
    directory = namespace.mkdir(folder, "d")
    file = namespace.create(directory, "f")
    _, cursor = asker.everything()
    namespace.delete(directory)
    entries, _ = asker.next_changes(cursor)
    assert [entry["guid"] for entry in entries] == [directory.guid]
    assert asker.metadata("ancestors", {"folder_id": file.folder_id, "guid": file.guid}).status_code == 404


def test_new_content_may_keep_its_file_id(namespace: Namespace) -> None:
    namespace.keep_file_ids = True
    file = namespace.create(namespace.create_folder("F"), "f", b"1")
    before = file.file
    namespace.write(file, b"12")
    assert file.file.file_id == before.file_id
    assert file.file.gvsn > before.gvsn
    assert namespace.by_file_id(before.file_id) is file.file


def test_changes_come_together_in_any_order(asker: Asker, namespace: Namespace) -> None:
    folder = namespace.create_folder("F")
    _, cursor = asker.everything()

    def backwards_and_twice(entries: list[Entry]) -> list[Entry]:
        return entries[::-1] * 2

    with namespace.batch(backwards_and_twice):
        namespace.create(namespace.mkdir(folder, "d"), "f")
    entries, _ = asker.next_changes(cursor)
    assert [entry["name"] for entry in entries] == ["f", "d", "f", "d"]


def test_the_listing_may_have_any_order(asker: Asker, namespace: Namespace) -> None:
    folder = namespace.create_folder("F")
    namespace.create(namespace.mkdir(folder, "d"), "f")
    namespace.sort_listing(lambda item: -len(item.lineage()))
    entries, _ = asker.everything()
    assert [entry["name"] for entry in entries] == ["f", "d", "F"]


def test_an_object_is_told_again(asker: Asker, namespace: Namespace) -> None:
    folder = namespace.create_folder("F")
    _, cursor = asker.everything()
    namespace.tell(folder, folder)
    entries, _ = asker.next_changes(cursor)
    assert [entry["guid"] for entry in entries] == [folder.guid] * 2


def test_a_hidden_directory_is_known_to_ancestors_alone(asker: Asker, namespace: Namespace) -> None:
    folder = namespace.create_folder("F")
    directory = namespace.mkdir(folder, "d")
    directory.hidden = True
    file = namespace.create(directory, "f")
    entries, _ = asker.everything()
    assert [entry["name"] for entry in entries] == ["F", "f"]
    chain = asker.metadata("ancestors", {"folder_id": file.folder_id, "guid": file.guid}).json()
    assert [entry["name"] for entry in chain] == ["F", "d", "f"]


def test_only_the_chosen_folders_are_told(asker: Asker, namespace: Namespace) -> None:
    mine, other = namespace.create_folder("mine"), namespace.create_folder("other")
    chosen = (mine.folder_id,)
    page = asker.page(folder_ids=chosen)
    assert [entry["name"] for entry in page["entries"]] == ["mine"]
    namespace.create(other, "f")
    page = asker.page(page["cursor"], chosen)
    assert (page["entries"], page["has_more"]) == ([], False)
    namespace.create(mine, "g")
    assert [entry["name"] for entry in asker.page(page["cursor"], chosen)["entries"]] == ["g"]


def test_other_cursors_are_rejected(asker: Asker, namespace: Namespace) -> None:
    folder = namespace.create_folder("F")
    cursor = asker.page()["cursor"]
    _, foreign, _ = Namespace().feed.page([], None, 10)
    for wrong in ("", "x", "ä", cursor[:-4], foreign):
        answer = asker.metadata("list", {"folder_ids": [], "cursor": wrong, "max_results": 10})
        assert answer.status_code == 400
        assert "size must be between" not in answer.json()["details"][0]["error"]
    for_other_folders = {"folder_ids": [folder.folder_id], "cursor": cursor}
    assert asker.metadata("list", for_other_folders).status_code == 400
    assert asker.metadata("longpoll", for_other_folders).status_code == 400


def test_a_reset_rejects_the_cursors_of_that_folder(asker: Asker, namespace: Namespace) -> None:
    one, two = namespace.create_folder("one"), namespace.create_folder("two")
    cursors = {chosen: asker.page(folder_ids=chosen)["cursor"] for chosen in ((one.folder_id,), (two.folder_id,), ())}
    namespace.feed.reset(one.folder_id)
    statuses = [
        asker.metadata("list", {"folder_ids": chosen, "cursor": cursor}).status_code
        for chosen, cursor in cursors.items()
    ]
    assert statuses == [400, 200, 400]
    namespace.feed.reset()
    assert asker.metadata("list", {"folder_ids": [two.folder_id], "cursor": cursors[two.folder_id,]}).status_code == 400
    assert asker.page()["entries"]


def test_a_long_poll_ends_with_the_reset_of_its_cursor(asker: Asker, namespace: Namespace) -> None:
    cursor = asker.page()["cursor"]
    reached = threading.Event()
    asker.portal.faults.portal = lambda *_: reached.set()
    answers = []
    body = {"folder_ids": [], "cursor": cursor, "timeout": 60_000}
    thread = threading.Thread(target=lambda: answers.append(asker.metadata("longpoll", body).status_code))
    thread.start()
    assert reached.wait(10)
    namespace.feed.reset()
    thread.join(10)
    assert answers == [400]


@pytest.mark.parametrize(
    "body",
    [b"", b"nonsense", b"null", b"[]", b'{"folder_ids":[], "cursor":7}', b'{"folder_ids":["x"]}', b'{"cursor":null}'],
)
@pytest.mark.parametrize("call", ["list", "longpoll", "ancestors"])
def test_a_body_that_makes_no_sense_is_refused(asker: Asker, call: str, body: bytes) -> None:
    answer = asker.http.post(f"{asker.portal.url}/ServicesPortal/v2/api/metadata/{call}", content=body)
    assert answer.status_code == 400
    assert answer.json()["details"][0]["error"]


def test_a_cloud_folder_comes_back_as_it_was(namespace: Namespace) -> None:
    folder = namespace.create_folder("F", owner=7)
    before = namespace.folders
    namespace.delete(folder)
    assert namespace.folders == []
    namespace.undelete(folder)
    assert namespace.folders == before


def test_names_are_taken_once(namespace: Namespace) -> None:
    folder = namespace.create_folder("F")
    file = namespace.create(folder, "f")
    with pytest.raises(FileExistsError):
        namespace.mkdir(folder, "f")
    namespace.delete(file)
    directory = namespace.mkdir(folder, "f")
    with pytest.raises(FileExistsError):
        namespace.undelete(file)
    with pytest.raises(ValueError, match="itself"):
        namespace.move(directory, directory)
    with pytest.raises(ValueError, match="within"):
        namespace.move(directory, namespace.create_folder("G"))
    with pytest.raises(UnknownObject):
        namespace.find("F/g")
