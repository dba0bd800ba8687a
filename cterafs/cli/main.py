"""The `cterafs` command: finds the sub-command, runs it, and turns what goes wrong into a line and a status.

A command is a module of this package with `add_parser(subparsers)`, which adds its parser and sets `run` on it: a
callable that takes the parsed arguments and returns the exit status. What is slow to import, a command imports in
`run`, so that `--help` is quick.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any, NoReturn

import cterafs
from cterafs.cli.failures import BROKEN_PIPE, INTERRUPTED, USAGE, Failure, failure, printable
from cterafs.cli.streams import complete_streams

COMMANDS: tuple[str, ...] = ("mount", "umount", "status", "warm", "find", "events", "get", "demo", "portal")
"""The modules of this package that are commands, in the order of the help."""


NO_SOURCE = ("cterafs", "none")
"""What stands in fstab where the configuration is in its usual place."""


class Parser(argparse.ArgumentParser):
    """Reports a usage error as one line that cannot drive a terminal."""

    def __init__(self, **options: Any) -> None:
        # What is unambiguous today is not when there are more options.
        super().__init__(**{"allow_abbrev": False} | options)

    def error(self, message: str) -> NoReturn:
        self.exit(USAGE, f"{self.prog}: {printable(message)}; see {self.prog} --help\n")


def build_parser(commands: Sequence[str] = COMMANDS) -> argparse.ArgumentParser:
    """The parser with all commands; `-v` may stand before or after the command's name."""
    parser = Parser(
        prog="cterafs",
        description="Mount the CTERA Global File System read-only, and read it with ordinary tools.",
        epilog="Exit status: 0 done, 1 failed, 2 usage or configuration, 3 credentials refused, "
        "4 portal or storage unreachable, 5 mountpoint or FUSE trouble.",
    )
    parser.add_argument("--version", action="version", version=f"cterafs {cterafs.__version__}")
    _add_verbose(parser, default=False)
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    for name in commands:
        importlib.import_module(f"cterafs.cli.{name}").add_parser(subparsers)
    for subparser in subparsers.choices.values():
        _add_verbose(subparser, default=argparse.SUPPRESS)
    return parser


def _add_verbose(parser: argparse.ArgumentParser, *, default: object) -> None:
    parser.add_argument("-v", "--verbose", action="store_true", default=default, help="show more, also of errors")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that `argv` (by default the process's arguments) names, and return its exit status."""
    complete_streams()
    try:
        args = build_parser().parse_args(_as_command(sys.argv[1:] if argv is None else argv))
    except KeyboardInterrupt:
        return INTERRUPTED
    return run(args)


def _as_command(argv: Sequence[str]) -> Sequence[str]:
    """`mount -t fuse.cterafs`, and so fstab, runs `cterafs SOURCE MOUNTPOINT -o OPTIONS` (mount.fuse3(8)).

    The source is the path of the configuration file, or else a name that says nothing.
    """
    if len(argv) < 3 or argv[2] != "-o" or not (argv[0].startswith("/") or argv[0] in NO_SOURCE):
        return argv
    source, mountpoint, *options = argv
    return ["mount", *(["--config", source] if source.startswith("/") else []), *options, "--", mountpoint]


def run(args: argparse.Namespace) -> int:
    """Run a parsed command; every exception ends here."""
    try:
        status = int(args.run(args))
        print(end="", flush=True)  # so that a full disk or a closed pipe is noticed here, not at the interpreter's end
    except Exception as error:
        return _report(error, failure(error), verbose=args.verbose)
    except (KeyboardInterrupt, BaseExceptionGroup) as error:
        return _report(error, failure(error), verbose=args.verbose)
    return status


def _report(error: BaseException, found: Failure, *, verbose: bool) -> int:
    if found.status == BROKEN_PIPE:
        # Nobody reads our output: the interpreter must not try to flush the rest into the closed pipe.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return found.status
    if verbose and found.is_bug:
        traceback.print_exception(error)
    if found.message:
        print(f"cterafs: {found.message}", file=sys.stderr)
    return found.status


if __name__ == "__main__":
    sys.exit(main())
