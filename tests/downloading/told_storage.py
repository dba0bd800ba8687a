"""A storage that does as it is told."""

from __future__ import annotations

from collections.abc import Callable

from scripted_server import Exchange, ScriptedServer


class Store:
    """A storage; `script` answers the requests for a block."""

    def __init__(self) -> None:
        self.script: Callable[[Exchange], None] = lambda exchange: exchange.answer(b"block")
        self.server: ScriptedServer

    def answer(self, exchange: Exchange) -> None:
        self.script(exchange)
