"""Fuzzers of what people write: the configuration's file, `-o`, the environment, and files with secrets."""

from __future__ import annotations

import tempfile
from pathlib import Path

from fuzzing import Target, is_one_line

from cterafs import config
from cterafs.config import credentials
from cterafs.errors import ConfigError

HOME = {"HOME": "/nowhere"}

FILE = b"""[portal]
url = "https://tenant.ctera.com"
username = "svc-mount"
password_command = "pass show ctera"
folders = [12345, "owner/name"]
verify_tls = true
[direct]
access_key_id = "AKIAIOSFODNN7EXAMPLE"
secret_access_key = "secret"
storage_hosts = ["a", "b"]
timeout = "30s"
[mount]
uid = 1000
umask = "0222"
[cache]
memory = "1.5GiB"
keep_free = "5%"
[metrics]
listen = "[::1]:9808"
"""
OPTIONS = (
    b"ro,_netdev,nofail,allow_other,uid=1000,gid=100,umask=0277,x-systemd.automount",
    b"portal.folders=a/b,portal.folders=12,portal.username=a\\,b,cache.memory=1GiB,direct.timeout=500ms",
    b"portal.url=https://[::1]:8443/,log.level=debug,metrics.listen=127.0.0.1:1,cache.keep_free=10%",
)
ENVIRONMENT = b"\0".join(
    (
        b"CTERAFS_PORTAL_URL=https://tenant.ctera.com",
        b"CTERAFS_PORTAL_FOLDERS=1,owner/name",
        b"CTERAFS_PORTAL_PASSWORD=secret",
        b"CTERAFS_DIRECT_SECRET_ACCESS_KEY_COMMAND=pass 'show it'",
        b"CTERAFS_MOUNT_UMASK=0o277",
        b"PATH=/bin",
    )
)
WORDS = (*(f"{name}=".encode() for name in config.OPTIONS), b"\\,", b",", b"'", b'"""', b"[[", b"0x", b"inf", b"%")


def _accepted(path: Path, environment: dict[str, str], options: list[str]) -> None:
    try:
        config.state_directory(config.load(path, environment, options))
    except ConfigError as error:
        _told(error)


def _told(error: ConfigError) -> None:
    assert is_one_line(error)


def file(data: bytes) -> None:
    with tempfile.NamedTemporaryFile() as written:  # for its user alone
        written.write(data)
        written.flush()
        _accepted(Path(written.name), HOME, [])


def options(data: bytes) -> None:
    _accepted(Path("/dev/null"), HOME, [data.decode("utf-8", "surrogateescape")])


def environment(data: bytes) -> None:
    variables = (word.partition("=") for word in data.decode("utf-8", "surrogateescape").split("\0"))
    _accepted(Path("/dev/null"), {name: value for name, _, value in variables}, [])


def secret(data: bytes) -> None:
    found = credentials._first_line("portal.password_file", data).reveal()
    assert found
    assert "\n" not in found
    found.encode()


TARGETS = (
    Target("config_file", file, (FILE,), (), WORDS),
    Target("mount_options", options, OPTIONS, (), WORDS),
    Target("environment", environment, (ENVIRONMENT,), (), WORDS),
    Target("secret_file", secret, (b"secret\nmore\n", b"secret\r\n"), (ConfigError,)),
)
