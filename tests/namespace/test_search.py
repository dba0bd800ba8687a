"""What `search` finds, in which tree, and what an expression may not do."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator
from pathlib import Path

import pytest

from cterafs.errors import ConfigError, NotFound, StateError
from cterafs.model import Event
from cterafs.namespace import findable, predicates
from cterafs.namespace.findable import NAMES, SIZES, TIMES, Order
from cterafs.namespace.search import Query, search
from cterafs.namespace.store import Store
from cterafs.namespace.tree import Tree

SECOND = 1_000_000_000


def directory(guid: str, name: str, parent: str | None) -> Event:
    return Event(guid=guid, name=name, is_dir=True, parent_guid=parent, folder_id=7)


def file(guid: str, name: str, parent: str, size: int = 0, mtime: int = 0, **values: object) -> Event:
    return Event(
        guid=guid,
        name=name,
        is_dir=False,
        parent_guid=parent,
        folder_id=7,
        size=size,
        mtime_ns=mtime * SECOND,
        **values,  # type: ignore[arg-type]
    )


TREE = [
    directory("r", "Docs", None),
    directory("a", "a", "r"),
    directory("b", "b[1]", "a"),
    file("1", "one.txt", "r", 10, 100, file_id=11, acl="D:x"),
    file("2", "two.txt", "a", 20, 200, gvsn="7"),
    file("3", "three.jpg", "b", 30, 300),
    file("4", "[x", "b", 40, 400),
    file("5", "lost.txt", "nowhere", 50, 500),
    file("7", "x", "1"),
    directory("c", "cycle", "c"),
    file("6", "six.txt", "c", 60, 600),
]


@pytest.fixture(params=["without indexes", "few matches", "many matches"])
def store(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """The same answers whether an index serves, a part of the tree is walked, or everything is looked at."""
    monkeypatch.setattr(predicates, "_FEW", 1 if request.param == "many matches" else 10_000)
    with Store.open(tmp_path) as opened, Tree(opened) as tree:
        tree.prepare(TREE, listing=True, complete=request.param != "without indexes").commit()
        yield opened


def paths(store: Store, query: Query) -> list[str]:
    return sorted(found.path for found in search(store, query))


ONE, TWO, THREE, FOUR = "/Docs/one.txt", "/Docs/a/two.txt", "/Docs/a/b[1]/three.jpg", "/Docs/a/b[1]/[x"
A, B = "/Docs/a", "/Docs/a/b[1]"


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (Query(), ["/Docs", A, B, ONE, TWO, THREE, FOUR]),
        (Query(under="/Docs/a"), [A, B, TWO, THREE, FOUR]),
        (Query(under="/Docs/a/b[1]/three.jpg"), [THREE]),
        (Query(kind="d"), ["/Docs", A, B]),
        (Query(kind="f"), [ONE, TWO, THREE, FOUR]),
        (Query(name="*.txt"), [ONE, TWO]),
        (Query(name="t*"), [TWO, THREE]),
        (Query(name="t*.txt", under="/Docs"), [TWO]),
        (Query(name="one.txt"), [ONE]),
        (Query(name="[!t]*", kind="f"), [ONE, FOUR]),
        (Query(name="[ot]??.txt"), [ONE, TWO]),
        (Query(name="[x"), [FOUR]),
        (Query(name="b[[]1]"), [B]),
        (Query(name="\ud800*"), []),
        (Query(size=("+", 20)), [THREE, FOUR]),
        (Query(size=("-", 20)), [ONE]),
        (Query(size=("=", 20)), [TWO]),
        (Query(size=("-", 1)), []),
        (Query(newer_ns=200 * SECOND), [THREE, FOUR]),
        (Query(newer_ns=200 * SECOND - 1, kind="f"), [TWO, THREE, FOUR]),
        (Query(name="t*", size=("+", 20)), [THREE]),
        (Query(name="t*", newer_ns=200 * SECOND), [THREE]),
        (Query(size=("+", 10), newer_ns=100 * SECOND, under="/Docs/a/b[1]"), [THREE, FOUR]),
        (Query(newer_ns=-1, size=("-", 11)), [ONE]),
        (Query(where="size > 10 AND kind = 'f' AND mtime < 400"), [TWO, THREE]),
        (Query(where="id = 11 OR gvsn = '7'"), [ONE, TWO]),
        (Query(where="guid = '3'"), [THREE]),
        (Query(where="acl LIKE 'D:%'"), [ONE]),
        (Query(where="1 -- a remark"), ["/Docs", A, B, ONE, TWO, THREE, FOUR]),
        (Query(where="kind = 'd'", name="a"), [A]),
    ],
)
def test_finds(store: Store, query: Query, expected: list[str]) -> None:
    assert paths(store, query) == sorted(expected)


@pytest.mark.parametrize(
    ("query", "expected"),
    [(Query(under="/Docs/a"), [A, B, TWO, THREE, FOUR]), (Query(under="/Docs/a", size=("+", 20)), [THREE, FOUR])],
)
def test_what_is_named_alike_is_not_below(store: Store, query: Query, expected: list[str]) -> None:
    with Tree(store) as tree:
        tree.prepare(
            [directory("8", "ab", "r"), file("9", "nine.txt", "8", 90), file("10", "ab.txt", "r", 90)]
        ).commit()
    assert paths(store, query) == sorted(expected)


def test_tells_the_object(store: Store) -> None:
    (found,) = search(store, Query(name="one.txt"))
    assert found.node == store.resolve(ONE)
    assert found.node.acl == "D:x"


@pytest.mark.parametrize(
    "where",
    [
        "nonsense",
        "size >",
        "1) UNION SELECT * FROM entry --",
        "1); DROP TABLE entry; --",
        "(DELETE FROM entry)",
        "load_extension('x')",
        "(SELECT count(*) FROM state) = 1",
        "(SELECT count(*) FROM sqlite_schema) > 0",
        "(SELECT count(*) FROM pragma_database_list) > 0",
        "(WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT max(x) FROM n) > 0",
        "length(zeroblob(1000000000)) > 0",
        "size = ?",
        "name = '\ud800'",
        "name = '\0'",
        "",
    ],
)
def test_a_bad_expression_is_refused_in_one_line(store: Store, where: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        list(search(store, Query(where=where)))
    assert "\n" not in str(refusal.value)
    assert len(list(search(store, Query()))) == 7


@pytest.mark.parametrize("query", [Query(size=("+", 2**63)), Query(newer_ns=-(2**70)), Query(name="x" * 5000)])
def test_absurd_values_are_refused(store: Store, query: Query) -> None:
    with pytest.raises(ConfigError):
        list(search(store, query))


@pytest.mark.parametrize("under", ["/nowhere", "/Docs/\udc80", "/Docs/one.txt/x"])
def test_a_path_that_is_not_there_is_told(store: Store, under: str) -> None:
    with pytest.raises(NotFound):
        list(search(store, Query(under=under)))


def test_sees_the_tree_as_it_was_when_it_began(store: Store, tmp_path: Path) -> None:
    results = search(store, Query(kind="f"))
    first = next(results).path
    with Tree(store) as tree:
        tree.prepare([Event(guid="a", name="moved", is_dir=True, parent_guid="r", folder_id=7)]).commit()
        tree.prepare([Event(guid="1", name="", is_dir=False, deleted=True)]).commit()
    assert sorted([first, *(found.path for found in results)]) == sorted([ONE, TWO, THREE, FOUR])
    assert ONE not in paths(store, Query())


def test_ends_with_the_store(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store, Tree(store) as tree:
        tree.prepare([directory("r", "Docs", None), *(file(f"f{n}", f"f{n}", "r") for n in range(5000))]).commit()
        results = search(store, Query(kind="f"))
        next(results)
        results.close()  # type: ignore[attr-defined]
        store.close()
        with pytest.raises(StateError, match="closed"):
            next(search(store, Query()))


@pytest.mark.parametrize(
    ("query", "order"),
    [
        (Query(name="file 12*"), NAMES),
        (Query(name="[f]ile*"), None),
        (Query(name="file*", size=("+", 2990)), SIZES),
        (Query(name="file 1*", size=("-", 2990), newer_ns=2998 * SECOND), TIMES),
        (Query(kind="d"), None),
    ],
)
def test_the_order_with_the_fewest_matches_serves(tmp_path: Path, query: Query, order: Order | None) -> None:
    entries = [file(f"f{n}", f"file {n}", "r", size=n, mtime=n) for n in range(3000)]
    with Store.open(tmp_path) as store, Tree(store) as tree:
        tree.prepare([directory("r", "Docs", None), *entries], listing=True, complete=True).commit()
        with store.held() as db:
            plan = predicates.Plan(query)
            assert plan.best_order(db) == (order, order is not None)
            statement = plan.select("entry.id") if order is None else plan.served("entry.id", order)[0]
            steps = db.execute(f"EXPLAIN QUERY PLAN {statement}", plan.parameters).fetchall()
            how = [step[3] for step in steps]
            assert how[0].startswith("SCAN entry" if order is None else "SEARCH found USING PRIMARY KEY (value")


@pytest.mark.parametrize("name", ["a\ud7ff*", "\U0010ffff*", "a\U0010ffff", "\ue000", "*"])
def test_prefixes_at_the_edges_of_unicode(tmp_path: Path, name: str) -> None:
    names = ["a\ud7ff", "a\ud7ffb", "a\ue000", "\U0010ffff", "\U0010ffff\U0010ffff", "a\U0010ffff", "b", "\ue000"]
    with Store.open(tmp_path) as store, Tree(store) as tree:
        entries = [file(f"f{n}", wanted, "r") for n, wanted in enumerate(names)]
        tree.prepare([directory("r", "Docs", None), *entries], listing=True, complete=True).commit()
        expected = [f"/Docs/{wanted}" for wanted in names if fnmatch.fnmatchcase(wanted, name)]
        assert paths(store, Query(name=name, kind="f")) == sorted(expected)


def test_what_changes_again_and_again_is_found_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(findable, "_LONGEST_LIST", 3)
    with Store.open(tmp_path) as store, Tree(store) as tree:
        tree.prepare([directory("r", "Docs", None), file("1", "a", "r", 1)], listing=True, complete=True).commit()
        for size in (2, 3, 4, 1, 2, 1, 5, 6):
            tree.prepare([file("1", "a", "r", size)]).commit()
            for _ in range(2):
                found = [hit.node.size for each in range(8) for hit in search(store, Query(size=("=", each)))]
                assert found == [size]
                tree.checkpoint()
        with store.held() as db:
            assert db.execute("SELECT count(*) FROM find_size").fetchone() == (1,)
            assert db.execute("SELECT count(*) FROM stale_size").fetchone()[0] < 3


def test_what_changes_again_and_again_is_stale_once(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store, Tree(store) as tree:
        tree.prepare([directory("r", "Docs", None), file("1", "a", "r", 1)], listing=True, complete=True).commit()
        for size in (2, 3, 4):
            tree.prepare([file("1", f"a{size}", "r", size, mtime=size)]).commit()
        with store.held() as db:
            for order in (NAMES, SIZES, TIMES):
                assert db.execute(f"SELECT count(*) FROM {order.stale}").fetchone() == (1,)  # noqa: S608


def test_what_was_rolled_back_is_found_when_it_changes_after_all(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store, Tree(store) as tree:
        tree.prepare([directory("r", "Docs", None), file("1", "a", "r", 1)], listing=True, complete=True).commit()
        tree.prepare([file("1", "a", "r", 2)]).rollback()
        assert paths(store, Query(size=("=", 1))) == ["/Docs/a"]
        tree.prepare([file("1", "a", "r", 3)]).commit()
        assert paths(store, Query(size=("=", 3))) == ["/Docs/a"]
        assert paths(store, Query(size=("=", 1))) == []
