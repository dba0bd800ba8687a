"""What holds for all tests."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("untimed", deadline=None)  # a test proves nothing of speed on a machine that does more
settings.load_profile("untimed")
