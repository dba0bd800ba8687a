"""What holds for all tests."""

from __future__ import annotations

import pytest
from hypothesis import settings

from cterafs.direct import landing

settings.register_profile("untimed", deadline=None)  # a test proves nothing of speed on a machine that does more
settings.load_profile("untimed")


@pytest.fixture
def divided(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of a few bytes are read while they arrive, as long ones are."""
    monkeypatch.setattr(landing, "UNDIVIDED", 0)
