"""Reference counts of very many inodes."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from cterafs.model import Inode
from cterafs.namespace.references import LARGEST, PAGE, References

INODES = st.sampled_from([1, 2, PAGE - 1, PAGE, 5 * PAGE + 7, 2**60])
STEPS = st.lists(st.tuples(INODES, st.integers(-2 * LARGEST, 2 * LARGEST)), max_size=30)


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
        assert all((Inode(known) in references) == (known in expected) for known in (1, 2, PAGE, inode))
        assert len(references) == len(expected)


def test_ten_thousand_inodes_in_a_row_take_three_pages_and_give_them_back() -> None:
    references = References()
    for inode in range(1, 10_001):
        references.add(Inode(inode))
    assert len(references._pages) == 3
    for inode in range(1, 10_001):
        references.subtract(Inode(inode), 1)
    assert not references._pages
    assert not references._live
