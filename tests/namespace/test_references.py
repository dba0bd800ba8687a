"""Reference counts of very many inodes."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from cterafs.model import Inode
from cterafs.namespace.references import LARGEST, PAGE, References
from cterafs.namespace.schema import ROW_BITS

AGAIN = 1 << ROW_BITS  # the same row with new content
INODES = st.sampled_from([1, 2, PAGE - 1, PAGE, 5 * PAGE + 7, 2**60, 2 + AGAIN, 2 + 5 * AGAIN, 1 + 9 * AGAIN])
STEPS = st.lists(st.tuples(INODES, st.integers(-2 * LARGEST, 2 * LARGEST)), max_size=30)


@given(st.lists(INODES), STEPS)
def test_many_at_once_count_as_one_after_the_other(inodes: list[int], steps: list[tuple[int, int]]) -> None:
    together, alone = References(), References()
    for inode, change in steps:
        for _ in range(change):
            together.add_all([Inode(inode), *map(Inode, inodes)])
            for each in (inode, *inodes):
                alone.add(Inode(each))
        together.subtract(Inode(inode), -min(change, 0))
        alone.subtract(Inode(inode), -min(change, 0))
        assert len(together) == len(alone)
        for known in {each for each, _ in steps} | {*inodes}:
            assert (Inode(known) in together) == (Inode(known) in alone)
    assert vars(together) == vars(alone)


@given(STEPS)
def test_it_counts_as_a_dictionary_would(steps: list[tuple[int, int]]) -> None:
    references, expected = References(), Counter[int]()
    for inode, change in steps:
        for _ in range(change):
            references.add(Inode(inode))
        if change < 0:
            references.subtract(Inode(inode), -change)
        expected[inode] = max(0, expected[inode] + change)
        expected += Counter()
        assert all((Inode(known) in references) == (known in expected) for known in (1, 2, PAGE, 2 + AGAIN, inode))
        assert len(references) == len(expected)


def test_ten_thousand_inodes_in_a_row_take_three_pages_and_give_them_back() -> None:
    references = References()
    for inode in range(1, 10_001):
        references.add(Inode(inode))
    assert len(references._pages) == 3
    assert not references._versions
    for inode in range(1, 10_001):
        references.subtract(Inode(inode), 1)
    assert not references._pages
    assert not references._live


def test_rows_with_new_contents_take_five_bytes_each() -> None:
    references = References()
    for row in range(1, PAGE):
        references.add(Inode(row + (row % 7 << ROW_BITS)))
    assert len(references._pages) == len(references._versions) == 1
    assert not references._more
    for row in range(1, PAGE):
        references.subtract(Inode(row + (row % 7 << ROW_BITS)), 1)
    assert not references._pages
    assert not references._versions


def test_a_slot_that_counted_for_one_version_can_count_for_the_first() -> None:
    references = References()
    references.add(Inode(1))  # which keeps the page
    references.add(Inode(2 + AGAIN))
    references.subtract(Inode(2 + AGAIN), 1)
    references.add(Inode(2))
    assert Inode(2) in references
    assert Inode(2 + AGAIN) not in references
