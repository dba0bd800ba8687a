"""`cterafs portal`: the embedded portal and object store alone, over a directory or a namespace that is computed."""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from cterafs.errors import ConfigError

if TYPE_CHECKING:
    from cterafs.demo.encoder import Encoding
    from cterafs.demo.faultplan import FaultPlan
    from cterafs.demo.inventory import Inventory
    from cterafs.demo.server import EmbeddedPortal

DEFAULT_LISTEN = "127.0.0.1:8090"
DEFAULT_BLOCK_SIZE = 4 << 20
LARGEST_BLOCK = 64 << 20  # blocks are made in memory
ENDING = {signal.SIGINT, signal.SIGTERM}
CODECS = ("none", "snappy", "snappy-raw", "gzip", "lz4")


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "portal",
        help="serve a directory as an embedded portal and object store",
        description="Serves a directory, whose sub-directories are the cloud folders, as a portal and an object store "
        "would, and follows what changes in it; or a namespace that is computed, for measuring. Prints one line of "
        "JSON, with the addresses and credentials, when it is ready, and serves until it is interrupted. It is meant "
        "for tests and demonstrations.",
    )
    content = parser.add_mutually_exclusive_group(required=True)
    content.add_argument("--source", type=Path, metavar="DIR", help="its sub-directories are the cloud folders")
    content.add_argument(
        "--synthetic",
        metavar="FILES=N,...",
        help="as many files as you like, without a disk; also FOLDERS, FANOUT (files in a directory), DEPTH, LARGEST "
        "(files in the largest directory), SIZE (median, in bytes), ORDER (tree or scattered), SEED, and RATE "
        "(changes in a second)",
    )
    parser.add_argument(
        "--listen",
        type=_address,
        default=DEFAULT_LISTEN,
        metavar="HOST:PORT",
        help="port 0 picks one (default: %(default)s); storage always gets a port of its own",
    )
    parser.add_argument("--compression", choices=CODECS, default="snappy", help="of blocks (default: %(default)s)")
    parser.add_argument(
        "--block-size",
        type=_block_size,
        default=DEFAULT_BLOCK_SIZE,
        metavar="N",
        help='in bytes, or "variable" (default: %(default)s)',
    )
    parser.add_argument("--no-encryption", action="store_true", help="leave blocks unencrypted")
    parser.add_argument(
        "--url-ttl", type=_seconds, default=4 * 3600.0, metavar="S", help="seconds that a block's address is valid"
    )
    parser.add_argument("--checksums", action="store_true", help="send Content-MD5 with blocks")
    parser.add_argument("--tls", action="store_true", help="serve https, with a certificate made for it")
    parser.add_argument(
        "--faults",
        type=Path,
        metavar="FILE",
        help="what to make wrong with which answers; how often that was done is printed at the end, as a line of JSON",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    try:
        from cterafs.demo.encoder import Codec, Encoding
        from cterafs.demo.server import EmbeddedPortal
    except ModuleNotFoundError as error:
        raise ConfigError(f"{error.name} is missing; the portal needs the extra: pip install 'cterafs[demo]'") from None
    from cterafs.cli import logsetup
    from cterafs.config import LogConfig

    logsetup.configure(LogConfig(level="warning"), verbose=args.verbose)
    if args.source is not None and not args.source.is_dir():
        raise ConfigError(f"--source: {args.source} is not a directory")
    encoding = Encoding(
        DEFAULT_BLOCK_SIZE if args.block_size is None else args.block_size,
        Codec(args.compression),
        encrypted=not args.no_encryption,
        variable=args.block_size is None,
    )
    namespace, changes = (None, contextlib.nullcontext()) if args.synthetic is None else _synthetic(args, encoding)
    plan = None if args.faults is None else _plan(args.faults)
    host, port = args.listen
    # Before any thread is started: all inherit the mask, so that the signals wait for sigwait.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    try:
        with (
            EmbeddedPortal(
                args.source,
                inventory=namespace,
                host=host,
                port=port,
                encoding=encoding,
                url_ttl=args.url_ttl,
                tls=args.tls,
            ) as portal,
            changes,
        ):
            portal.store.checksums = args.checksums
            portal.faults.plan = plan
            print(json.dumps(_announcement(portal)), flush=True)
            signal.sigwait(ENDING)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    if plan is not None:
        print(json.dumps({"faults": plan.injected}), flush=True)
    return 0


def _synthetic(args: argparse.Namespace, encoding: Encoding) -> tuple[Inventory, AbstractContextManager[object]]:
    """The namespace that was asked for, and what changes it for as long as the context lasts."""
    from cterafs.demo.synthetic.churn import Churn
    from cterafs.demo.synthetic.shape import Shape
    from cterafs.demo.synthetic.tree import SyntheticNamespace

    try:
        shape = Shape.parse(args.synthetic)
    except ValueError as error:
        raise ConfigError(f"--synthetic: {error}") from None
    namespace = SyntheticNamespace(shape, encoding)
    return namespace, Churn(namespace, shape.rate) if shape.rate else contextlib.nullcontext()


def _plan(file: Path) -> FaultPlan:
    from cterafs.demo.faultplan import BadPlan, FaultPlan

    try:
        return FaultPlan.load(file)
    except OSError as error:
        raise ConfigError(f"--faults: cannot read {file}: {error.strerror}") from None
    except BadPlan as error:
        raise ConfigError(f"--faults: {file}: {error}") from None


def _announcement(portal: EmbeddedPortal) -> dict[str, str]:
    """What a client needs to know, secrets included: whoever started the portal reads it."""
    return {
        "url": portal.url,
        "username": portal.username,
        "password": portal.password,
        "access_key_id": portal.access_key_id,
        "secret_access_key": portal.secret_access_key,
        "ca_file": str(portal.ca_file or ""),
    }


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT")
    return host.strip("[]"), int(port)


def _block_size(text: str) -> int | None:
    """None is variable."""
    if text == "variable":
        return None
    if not text.isdecimal() or not 0 < int(text) <= LARGEST_BLOCK:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number up to {LARGEST_BLOCK} nor 'variable'")
    return int(text)


def _seconds(text: str) -> float:
    if not text.replace(".", "", 1).isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")
    return float(text)
