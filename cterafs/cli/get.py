"""`cterafs get`: downloads one file, without a mount."""

from __future__ import annotations

import argparse
import contextlib
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from cterafs import config as configuration
from cterafs.cli import settings
from cterafs.config import Config, DirectCredentials
from cterafs.errors import ConfigError, CteraError, IsADirectory, NotFound
from cterafs.model import ByteRange

LARGEST_ID = 2**63 - 1


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "get",
        help="download a file by Direct IO, without a mount",
        description="Downloads a file by Direct IO, without a mount. It is written to FILE.part, which is renamed when "
        "it is complete; after an interruption, the same command goes on where it stopped.",
    )
    parser.add_argument(
        "what",
        metavar="FILE_ID_OR_PATH",
        help="digits alone are a file id; anything else is a path below the mount's root, found in the local index",
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        help="where to, - for standard output; by default the file's name, in the current directory",
    )
    parser.add_argument(
        "--range",
        dest="byte_range",
        type=_byte_range,
        default=ByteRange(),
        metavar="A-B",
        help="only the bytes from A to B, both included; without B, to the end",
    )
    settings.add_config(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    import anyio

    config, environment = settings.load_for_portal(args)
    credentials = configuration.direct_credentials(config.direct, environment)
    wanted = _find(args.what, config)
    with _destination(args.output, wanted.name) as destination:
        anyio.run(_get, config, credentials, wanted, args.byte_range, destination, backend="trio")
    return 0


@dataclass(frozen=True, slots=True)
class Wanted:
    """The file to download. `is_empty` where the index says so: such a file has no blocks to ask for."""

    file_id: int
    name: str
    is_empty: bool = False


async def _get(
    config: Config,
    credentials: DirectCredentials,
    wanted: Wanted,
    byte_range: ByteRange,
    destination: Path | BinaryIO,
) -> None:
    from cterafs.cli.download import download, write_empty
    from cterafs.clients import direct_client

    if wanted.is_empty:
        if byte_range.start:
            raise ConfigError(f"the range begins at {byte_range.start}, and the file is empty")
        write_empty(destination)
        return
    async with direct_client(config, credentials) as client:
        await download(client, wanted.file_id, byte_range, destination, workers=config.direct.workers)


def _find(what: str, config: Config) -> Wanted:
    """The file that the argument names; a path is looked up in the index that a mount has made."""
    if re.fullmatch(r"[0-9]+", what):
        if len(what) > 19 or int(what) > LARGEST_ID:
            raise ConfigError(f"{what} is not a file id; a path begins with /")
        return Wanted(int(what), what)
    if not what:
        raise ConfigError("which file? Give a file id, or a path like /folder/file")
    from cterafs.namespace.store import Store

    with Store.open(configuration.state_directory(config), read_only=True) as store:
        node = store.resolve(what)
    if node is None:
        raise NotFound(f"{what}: the index has no such file; is the path one below the mount's root?")
    if node.is_dir:
        raise IsADirectory(f"{what} is a directory, and only a file can be downloaded")
    if node.file_id is None:
        raise NotFound(f"{what}: the portal has told no file id for it")
    return Wanted(node.file_id, node.name, is_empty=node.size == 0)


@contextlib.contextmanager
def _destination(output: str | None, name: str) -> Iterator[Path | BinaryIO]:
    """A path where a file can be put in place, or a stream. Devices and pipes are written to, never replaced."""
    if output == "-":
        with _named("standard output"):
            yield sys.stdout.buffer
        return
    path = Path(output or name).resolve()
    if path.is_dir():
        path /= name
    if not path.exists() or path.is_file():
        yield path
        return
    with _named(str(path)), path.open("wb") as stream:
        yield stream


@contextlib.contextmanager
def _named(name: str) -> Iterator[None]:
    """Errors of an open stream do not tell its name, and the user needs it."""
    try:
        yield
    except CteraError:
        raise
    except OSError as error:
        raise OSError(error.errno, error.strerror, error.filename or name) from None


def _byte_range(text: str) -> ByteRange:
    match = re.fullmatch(r"([0-9]{1,18})-([0-9]{1,18})?", text)
    if match is None:
        raise argparse.ArgumentTypeError("a range is written like 0-99, or 100- for all behind the first 100 bytes")
    try:
        return ByteRange(int(match[1]), int(match[2]) if match[2] else None)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
