"""When requests are repeated, under a clock that jumps."""

import pytest
import trio
from trio.testing import MockClock

from cterafs import errors
from cterafs.direct import retry
from cterafs.direct.retry import Patience, retry_after

pytestmark = pytest.mark.trio


async def test_pauses_double_and_attempts_end(autojump_clock: MockClock) -> None:
    patience = Patience(1000)
    pauses = []
    for _ in range(retry.ATTEMPTS - 1):
        before = trio.current_time()
        await patience.after(errors.InvalidRequest(7))
        pauses.append(trio.current_time() - before)
    for index, pause in enumerate(pauses):
        longest = retry.FIRST_PAUSE * 2**index
        assert longest / 2 <= pause <= longest
    with pytest.raises(errors.InvalidRequest):
        await patience.after(errors.InvalidRequest(7))


async def test_what_is_of_no_use_is_not_repeated(autojump_clock: MockClock) -> None:
    with pytest.raises(errors.AuthorizationError):
        await Patience(1000).after(errors.AuthorizationError(7))
    assert trio.current_time() == 0


async def test_the_deadline_ends_it(autojump_clock: MockClock) -> None:
    patience = Patience(10)
    await trio.sleep(9.9)
    with pytest.raises(errors.InvalidRequest):
        await patience.after(errors.InvalidRequest(7))
    assert trio.current_time() == pytest.approx(9.9)


async def test_progress_moves_the_deadline(autojump_clock: MockClock) -> None:
    patience = Patience(10)
    await trio.sleep(9.9)
    patience.progressed(4)
    assert patience.left() == pytest.approx(6)
    patience.progressed(9)  # an older sign of life takes nothing away
    assert patience.left() == pytest.approx(6)
    await patience.after(errors.InvalidRequest(7))


async def test_the_server_may_ask_for_more_time_but_not_for_all(autojump_clock: MockClock) -> None:
    error = errors.InvalidRequest(7)
    error.retry_after = 20
    await Patience(30).after(error)
    assert trio.current_time() == 20
    with pytest.raises(errors.InvalidRequest):
        await Patience(20).after(error)
    assert trio.current_time() == 20


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("3", 3.0), ("0", 0.0), (None, None), ("", None), ("-1", None), ("٣", None), ("1e9", None), ("9" * 400, None),
     ("Wed, 21 Oct 2026 07:28:00 GMT", None)],
)  # fmt: skip
async def test_retry_after(value: str | None, seconds: float | None) -> None:
    assert retry_after(value) == seconds
