"""A portal that answers exactly what a test tells it to, on a real socket."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> object:
        return json.loads(self.body)


@dataclass(frozen=True)
class Reply:
    """`raw`, where given, is sent as it is, and the connection closed."""

    status: int = 200
    body: bytes = b""
    headers: Sequence[tuple[str, str]] = ()
    raw: bytes | None = None


@dataclass
class ScriptedPortal:
    """Replies by the end of the path: a list is used up to its last, which stays; a function is asked each time."""

    url: str
    replies: dict[str, list[Reply] | Callable[[Request], Reply]] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def on(self, path: str, *replies: Reply | Callable[[Request], Reply]) -> None:
        first = replies[0]
        self.replies[path] = [r for r in replies if isinstance(r, Reply)] if isinstance(first, Reply) else first

    def asked(self, path: str) -> list[Request]:
        with self.lock:
            return [request for request in self.requests if request.path.endswith(path)]

    def answer(self, request: Request) -> Reply:
        with self.lock:
            self.requests.append(request)
            path = next((path for path in self.replies if request.path.endswith(path)), None)
            if path is None:
                return Reply(404, b"not scripted")
            replies = self.replies[path]
            if isinstance(replies, list):
                return replies.pop(0) if len(replies) > 1 else replies[0]
        return replies(request)


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def portal_server() -> Iterator[ScriptedPortal]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def respond(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            reply = script.answer(Request(self.command, self.path, headers, body))
            if reply.raw is not None:
                self.wfile.write(reply.raw)
                self.close_connection = True
                return
            self.send_response(reply.status)
            for name, value in reply.headers:
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(reply.body)))
            self.end_headers()
            self.wfile.write(reply.body)

        do_GET = do_POST = respond  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 64  # the default of 5 makes clients that come together wait a second

        def handle_error(self, *_: object) -> None:  # clients that hang up are part of the tests
            pass

    with Server(("127.0.0.1", 0), Handler) as server:
        script = ScriptedPortal(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield script
        server.shutdown()
        thread.join()


@pytest.fixture
def reply() -> type[Reply]:
    """Conftest is not importable, so tests get its class this way."""
    return Reply
