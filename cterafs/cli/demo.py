"""`cterafs demo`: an embedded portal, and a mount of it, on this machine alone."""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import functools
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

STOP_DEADLINE = 10.0
"""Seconds for the portal to end."""

PR_SET_PDEATHSIG = 1  # <sys/prctl.h>


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "demo",
        help="mount an embedded portal, to try everything without an account",
        description="Starts a portal and an object store on loopback, over a directory or over generated samples, and "
        "mounts them as any other portal would be. Ends upon Ctrl-C or when it is unmounted.",
    )
    parser.add_argument("mountpoint", type=Path, nargs="?", metavar="MOUNTPOINT", help="by default a temporary one")
    parser.add_argument(
        "--source", type=Path, metavar="DIR", help="its sub-directories are the cloud folders; by default samples"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from cterafs import config as configuration
    from cterafs.app import Credentials
    from cterafs.cli import daemon, logsetup
    from cterafs.kernel.mountpoint import absolute

    configuration.strip_secrets(os.environ)  # of another portal, which no program started here has a use for
    logsetup.configure(configuration.LogConfig(level="warning"), verbose=args.verbose)
    with tempfile.TemporaryDirectory(prefix="cterafs-demo-") as scratch, _stay_until_done():
        home = Path(scratch)
        mountpoint = args.mountpoint or home / "mnt"
        if args.mountpoint is None:
            mountpoint.mkdir()
        source = args.source or _samples(home / "samples")
        with _portal(source) as (portal, status):
            if portal is None:
                return status
            config = configuration.load(_write_config(home, portal), {"HOME": scratch}, [])
            credentials = Credentials(
                configuration.portal_credentials(config.portal, {}), configuration.direct_credentials(config.direct, {})
            )
            path = absolute(mountpoint)

            def ready() -> None:
                print(f"The portal serves {source} at {portal['url']}.")
                print(f"It is mounted at {path}; look into it from another terminal. Ctrl-C ends it.", flush=True)

            return daemon.mount(config, credentials, path, wait=True, ready=ready)


@contextlib.contextmanager
def _stay_until_done() -> Iterator[None]:
    """Once the mount has ended by a signal, what was made for it is still taken away, undisturbed by a second one."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    for number in before:
        signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _samples(directory: Path) -> Path:
    from cterafs.demo.samples import generate

    print("Generating samples …", flush=True)
    generate(directory)
    return directory


def _write_config(home: Path, portal: dict[str, Any]) -> Path:
    """The demo is configured as any mount is: by a file, which only its owner can read."""
    values = {
        "portal": {key: portal[key] for key in ("url", "username", "password")},
        "direct": {key: portal[key] for key in ("access_key_id", "secret_access_key")},
        "state": {"directory": str(home / "state")},
    }
    lines = [
        line
        for section, options in values.items()
        for line in (f"[{section}]", *(f"{key} = {json.dumps(value)}" for key, value in options.items()))
    ]
    file = home / "config.toml"
    file.touch(mode=0o600)
    file.write_text("\n".join(lines) + "\n")
    return file


@contextlib.contextmanager
def _portal(source: Path) -> Iterator[tuple[dict[str, Any] | None, int]]:
    """The portal in a process of its own, so that it does not slow the mount down; it ends with this one.

    None, and its exit status, where it could not begin; it has said why.
    """
    command = [sys.executable, "-m", "cterafs.cli.main", "portal", "--source", str(source), "--listen", "127.0.0.1:0"]
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is for the mount, which still needs the portal while it ends
        preexec_fn=functools.partial(_end_with, os.getpid()),  # noqa: PLW1509  # no thread has been started yet
    )
    try:
        line = process.stdout.readline() if process.stdout else b""
        yield (json.loads(line), 0) if line else (None, abs(process.wait()))
    finally:
        process.terminate()
        try:
            process.wait(STOP_DEADLINE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _end_with(parent: int) -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it ended before the kernel was asked to tell
        os._exit(1)
