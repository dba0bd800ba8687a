"""An object store with blocks on the disk, and files as they are: nginx, which keeps nobody waiting."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from benchmarks.machine import MIB
from cterafs.demo.certificates import make_certificate
from cterafs.demo.encoder import boundaries, encode, object_name
from cterafs.demo.objects import Version

HOST = "127.0.0.1"
ENCODERS = 2
PATIENCE = 10.0
"""Seconds until nginx listens, or has written what it logs."""

CONFIGURATION = """
{user}
daemon off;
pid {home}/nginx.pid;
error_log {home}/error.log;
worker_processes 2;
events {{ worker_connections 4096; }}
http {{
    client_body_temp_path {home}/body; proxy_temp_path {home}/proxy; fastcgi_temp_path {home}/fastcgi;
    uwsgi_temp_path {home}/uwsgi; scgi_temp_path {home}/scgi;
    default_type application/octet-stream;
    log_format wire '$status $bytes_sent $uri';
    access_log {home}/access.log wire;
    sendfile on; tcp_nopush on; tcp_nodelay on;
    keepalive_requests 10000000;  # a client that reads millions of blocks need not connect again
    server {{
        listen {host}:{plain_port} backlog=4096;
        listen {host}:{tls_port} ssl backlog=4096;
        ssl_certificate {certificate};
        ssl_certificate_key {key};
        root {root};
        autoindex on;
    }}
}}
"""


@dataclass(frozen=True, slots=True)
class Sent:
    """What went over the wire: requests answered, bytes of the answers with their headers."""

    requests: int
    bytes: int


class ObjectStore:
    """nginx over a directory; a context manager.

    Attributes:
        ca_file: the authority of its certificate, made for this run.
    """

    def __init__(self, home: Path) -> None:
        home.mkdir()
        self._home = home
        self._root = home / "root"
        (self._root / "files").mkdir(parents=True)
        certificate = make_certificate(home, HOST)
        self.ca_file = certificate.ca
        self._ports = _free_ports(2)
        self._seen = 0
        configuration = home / "nginx.conf"
        configuration.write_text(
            CONFIGURATION.format(
                user="user root;" if os.geteuid() == 0 else "",  # the directory is closed to others
                home=home,
                root=self._root,
                host=HOST,
                plain_port=self._ports[0],
                tls_port=self._ports[1],
                certificate=certificate.certificate,
                key=certificate.key,
            )
        )
        binary = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
        if binary is None:
            raise FileNotFoundError("nginx is not installed")
        self._command = [binary, "-c", str(configuration), "-p", str(home), "-e", str(home / "error.log")]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> ObjectStore:
        self._process = subprocess.Popen(self._command)
        try:
            for port in self._ports:
                self._wait_for(port)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._process:
            self._process.terminate()
            self._process.wait()

    def port(self, tls: bool) -> int:
        return self._ports[tls]

    def base_url(self, tls: bool) -> str:
        """Where blocks are, as the portal's lists name them."""
        return f"{'https' if tls else 'http'}://{HOST}:{self._ports[tls]}"

    def put_blocks(self, versions: Sequence[Version]) -> None:
        """Encode all blocks of these versions."""
        jobs = []
        for version in versions:
            offsets = boundaries(version.size, version.encoding, version.seed)
            (self._root / "blocks" / f"{version.serial:08d}").mkdir(parents=True)
            jobs += [(version, index, offsets[index], offsets[index + 1]) for index in range(len(offsets) - 1)]
        with ThreadPoolExecutor(ENCODERS) as threads:
            list(threads.map(self._put_block, jobs))
        os.sync()  # writing back must not meet the measurements

    def put_file(self, name: str, version: Version) -> Path:
        """The file as it is, at `files/NAME`; what it is locally."""
        path = self._root / "files" / name
        with path.open("wb") as file:
            for offset in range(0, version.size, MIB):
                file.write(version.content.read(offset, min(MIB, version.size - offset)))
        os.sync()
        return path

    def sent(self) -> Sent:
        """What was sent since the last call: ask when nobody is reading any more."""
        time.sleep(0.1)  # the line is written when the answer's last byte is
        with (self._home / "access.log").open() as log:
            log.seek(self._seen)
            lines = log.readlines()
            self._seen = log.tell()
        return Sent(len(lines), sum(int(line.split()[1]) for line in lines))

    def _put_block(self, job: tuple[Version, int, int, int]) -> None:
        version, index, start, stop = job
        name = f"{object_name(version.seed, index)}-{index}"
        block = encode(version.content.read(start, stop - start), index, version.encoding, version.seed)
        with (self._root / "blocks" / f"{version.serial:08d}" / name).open("wb") as file:
            if block.count(0) < len(block):
                file.write(block)
            else:
                file.truncate(len(block))  # a hole, which takes no space

    def _wait_for(self, port: int) -> None:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                socket.create_connection((HOST, port)).close()
            except ConnectionRefusedError:
                if time.monotonic() > deadline or (self._process and self._process.poll() is not None):
                    raise
                time.sleep(0.02)
            else:
                return


def _free_ports(count: int) -> list[int]:
    listeners = [socket.create_server((HOST, 0)) for _ in range(count)]
    ports = [listener.getsockname()[1] for listener in listeners]
    for listener in listeners:
        listener.close()
    return ports
