"""Reads one file by CTERA's own client, and prints the seconds from asking for its blocks to the last byte.

A process of its own, as a program that uses it would be. What to read comes as JSON on standard input, for a key does
not belong among the arguments.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

import cterasdk
from cterasdk.direct.client import DirectIO


async def read(*, url: str, access_key_id: str, secret_access_key: str, file_id: int, size: int, workers: int) -> float:
    # It takes no authority but the system's: certificates go unchecked, to its advantage.
    cterasdk.settings.io.direct.storage.settings.connector.ssl = False
    async with DirectIO(url, access_key_id, secret_access_key) as client:
        began = time.perf_counter()
        streamer = await client.streamer(file_id, max_workers=workers)
        received = 0
        async for block in streamer.start():
            received += len(block.data)
        took = time.perf_counter() - began
    if received != size:
        raise EOFError(f"{received} bytes instead of {size}")
    return took


def main() -> None:
    job: dict[str, Any] = json.load(sys.stdin)
    print(asyncio.run(read(**job)))


main()
