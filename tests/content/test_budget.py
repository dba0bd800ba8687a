"""Who may be ahead by how much."""

from __future__ import annotations

import pytest

from cterafs.content.budget import PART, RECENT, Budget, File
from cterafs.content.window import BEHIND, BEHIND_OF_MANY

MIB = 1 << 20


@pytest.mark.parametrize(
    ("memory", "maximum", "readers", "share"),
    [
        (512, 64, 1, 64),
        (512, 64, 2, 512 / PART / 2),
        (512, 64, 64, 512 / PART / 64),
        (6 * 64, 64, 1, 64),
        (64, 64, 1, 64 / PART),
        (512, 0, 1, 0),
        (512, 1, 64, 1),
    ],
)
def test_shares(memory: int, maximum: int, readers: int, share: float) -> None:
    budget = Budget(memory * MIB, maximum * MIB)
    for _ in range(3):
        shares = [budget.share(reader) for reader in range(readers)]
    assert shares == [pytest.approx(share * MIB, abs=1)] * readers
    assert sum(shares) <= memory * MIB / PART


def test_readers_of_several_files_keep_less_behind_them() -> None:
    budget = Budget(MIB, MIB)
    for reader in range(3):
        budget.note(reader, File("a", 1))
    assert budget.behind == BEHIND
    budget.note("another", File("b", 1))
    assert budget.behind == BEHIND_OF_MANY
    for _ in range(RECENT + 1):
        budget.note("another", File("b", 1))
    assert budget.behind == BEHIND


def test_one_is_alone_until_another_reads() -> None:
    budget = Budget(MIB, MIB)
    budget.note("walks ahead")
    budget.note(1, File("a", 1))
    assert budget.alone
    budget.note(2, File("a", 1))
    assert not budget.alone
    budget.leave(1)
    assert budget.alone
    budget.note(3, File("b", 1))
    assert not budget.alone


def test_who_leaves_gives_its_share_up() -> None:
    budget = Budget(60 * PART, 1000)
    for reader in range(6):
        budget.share(reader)
    budget.leave(5)
    budget.leave(5)
    assert budget.share(0) == 12


def test_who_does_not_read_gives_its_share_up_after_a_while() -> None:
    budget = Budget(60 * PART, 1000)
    assert budget.share("paused") == 60
    assert [budget.share("busy") for _ in range(RECENT + 1)] == [30] * RECENT + [60]
    assert budget.share("paused") == 30


def test_memory_is_short_while_the_files_that_are_read_do_not_fit() -> None:
    budget = Budget(100, 100)
    budget.share(1, File("a", 60))
    budget.share(2, File("a", 60))
    assert not budget.short
    budget.share(3, File("b", 60))
    assert budget.short
    budget.leave(1)
    assert budget.short
    budget.leave(2)
    assert not budget.short
    budget.share(4, File("c", 101))
    assert budget.short
    for _ in range(RECENT + 1):
        budget.share(3, File("b", 60))
    assert not budget.short
    budget.leave(3)
    budget.leave(4)
    assert not budget.short
