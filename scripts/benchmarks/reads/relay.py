"""A link with a delay and a bandwidth, as a relay of connections on this machine: it needs no privilege and no module
of the kernel, which not every one has.

What it does: requests arrive a round trip later, a new connection's first ones two (its handshake); answers share the
bandwidth, a piece of each connection in turn. What it does not: lose packets, or begin slowly on a new connection.

Run as `relay.py BITS_PER_SECOND ROUND_TRIP PORT...`, with 0 for no limit; prints the ports where it listens for each
of those, as a JSON array, and ends with its standard input.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys

HOST = "127.0.0.1"
BURST = 0.004
"""Seconds that the link may catch up on: timers are a millisecond late."""

PIECE = 0.002
"""Seconds that a connection has the link for at once, when others wait."""

TICK = 1e-6
"""Seconds between two pieces of a request: timers of the same moment may go off in any order."""

LARGEST = 64 << 10
SMALLEST = 4 << 10


class Bandwidth:
    def __init__(self, bits: float) -> None:
        self._rate = bits / 8
        self._free = 0.0
        self.piece = min(LARGEST, max(SMALLEST, int(self._rate * PIECE))) if bits else LARGEST

    async def take(self, length: int) -> None:
        """Returns when so many bytes have gone through."""
        if not self._rate:
            return
        now = asyncio.get_running_loop().time()
        self._free = max(self._free, now - BURST) + length / self._rate
        if self._free > now:
            await asyncio.sleep(self._free - now)


class Relay:
    def __init__(self, bandwidth: Bandwidth, round_trip: float, port: int) -> None:
        self._bandwidth = bandwidth
        self._round_trip = round_trip
        self._port = port
        self._tasks: set[asyncio.Task[None]] = set()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(HOST, self._port, limit=self._bandwidth.piece)
        answers = asyncio.create_task(self._answers(far_reader, writer))
        self._tasks.add(answers)
        answers.add_done_callback(self._tasks.discard)
        try:
            await self._requests(reader, far_writer)
        finally:
            answers.cancel()
            far_writer.transport.abort()
            writer.transport.abort()

    async def _requests(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        arrival = loop.time() + 2 * self._round_trip
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(LARGEST):
                arrival = max(loop.time() + self._round_trip, arrival + TICK)
                loop.call_at(arrival, writer.write, data)

    async def _answers(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(self._bandwidth.piece):
                await self._bandwidth.take(len(data))
                writer.write(data)
                await writer.drain()
            await writer.drain()
            writer.close()


async def serve(bits: float, round_trip: float, ports: list[int]) -> None:
    bandwidth = Bandwidth(bits)
    servers = [await asyncio.start_server(Relay(bandwidth, round_trip, port).accept, HOST, 0) for port in ports]
    print(json.dumps([server.sockets[0].getsockname()[1] for server in servers]), flush=True)
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(serve(float(sys.argv[1]), float(sys.argv[2]), [int(word) for word in sys.argv[3:]]))
