"""What `cterafs status` prints for people."""

import pytest

from cterafs.cli import status

LIVE = {
    "mountpoint": "/mnt/ctera",
    "pid": 7,
    "version": "1.0",
    "state": "live",
    "reason": None,
    "feed_lag_s": 0.0,
    "last_event_age_s": 3661.2,
    "files": 1234,
    "directories": 5,
    "bytes": 3 << 29,
    "cache": {
        "memory": {"used": 512, "limit": 512 << 20, "hits": 3, "misses": 1},
        "disk": {"used": 3 << 30, "limit": 20 << 30, "hits": 1, "misses": 3, "dropped": 0, "reason": None},
    },
    "reads": {"requests": 4, "bytes": 2048, "downloaded_bytes": 1024, "open_files": 1},
    "errors": {"DownloadTimeout": 2},
    "rss": 45 << 20,
}


def test_a_live_mount():
    assert status.text(LIVE) == (
        "/mnt/ctera: live\n"
        "  process    pid 7, version 1.0, 45.0 MiB resident\n"
        "  feed       0.0 s behind, last event 1:01:01 ago\n"
        "  tree       1,234 files, 5 directories, 1.5 GiB\n"
        "  memory     512 B of 512.0 MiB, 75 % of 4 blocks found\n"
        "  disk       3.0 GiB of 20.0 GiB, 25 % of 4 blocks found\n"
        "  reads      4 requests, 2.0 KiB; 1.0 KiB downloaded, 1 files open\n"
        "  errors     2 DownloadTimeout"
    )


@pytest.mark.parametrize(
    ("lag", "event_age", "line"),
    [
        (None, None, "not up to date since it was mounted, no event yet"),
        (59.9, None, "59.9 s behind, no event yet"),
        (200_000.4, 200_001.0, "2 days, 7:33:20 behind, last event 2 days, 7:33:21 ago"),
    ],
)
def test_how_far_behind_it_is(lag, event_age, line):
    found = status.text(LIVE | {"feed_lag_s": lag, "last_event_age_s": event_age})
    assert f"  feed       {line}\n" in found


def test_a_reason_cannot_drive_the_terminal():
    assert "offline (\\x1b[2J)\n" in status.text(LIVE | {"state": "offline", "reason": "\x1b[2J"})


@pytest.mark.parametrize(
    ("disk", "line"),
    [
        ({"limit": 0}, "off; cache.disk turns it on"),
        ({"reason": "No space left on device"}, "not used for now: No space left on device"),
        ({"used": None}, "unknown of 20.0 GiB, 25 % of 4 blocks found"),
    ],
)
def test_a_disk_tier_that_is_not_as_it_should_be(disk, line):
    cache = LIVE["cache"] | {"disk": LIVE["cache"]["disk"] | disk}
    assert f"  disk       {line}\n" in status.text(LIVE | {"cache": cache})
