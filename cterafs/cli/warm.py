"""`cterafs warm`: brings files or trees to the disk cache before they are read."""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from cterafs.cli.failures import FAILED, printable
from cterafs.cli.progress import readable


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "warm",
        help="bring files to the disk cache before they are read",
        description="Brings files, and all that lies below directories, to the disk cache, so that reading them asks "
        "storage nothing. What is there already is not downloaded again.",
    )
    parser.add_argument("paths", nargs="+", metavar="PATH", help="a file or a directory in a mount of cterafs")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    failed = 0
    for mountpoint, paths in _by_mount(args.paths).items():
        failed += _warm(mountpoint, paths)
    return FAILED if failed else 0


def _by_mount(paths: list[str]) -> dict[Path, list[str]]:
    from cterafs.cli import indexes
    from cterafs.errors import MountError

    mounts: dict[Path, list[str]] = {}
    for path in paths:
        mounted = indexes.in_mount(path)
        if mounted is None:
            raise MountError(f"{path} is in no mount of cterafs; see: cterafs status")
        mounts.setdefault(mounted[0], []).append(f"/{mounted[1]}")
    return mounts


def _warm(mountpoint: Path, paths: list[str]) -> int:
    """The number of files that could not be brought."""
    from cterafs import control
    from cterafs.cli import indexes

    record = indexes.record_of(mountpoint)
    with Line() as line, contextlib.closing(control.ask(record, {"command": "warm", "paths": paths})) as answers:
        last = _follow(_as_they_come(answers, mountpoint), mountpoint, line)
    print(
        f"{last['files'] - last['failed']:,} files, {readable(last['bytes'])} on the disk; "
        f"{readable(last['downloaded'])} downloaded for it"
    )
    return int(last["failed"])


def _as_they_come(answers: Iterator[dict[str, Any]], mountpoint: Path) -> Iterator[dict[str, Any]]:
    """The mount's answers, which it must not stop to give.

    Raises:
        MountError: it ended.
    """
    from cterafs.errors import MountError

    try:
        yield from answers
    except (OSError, ValueError) as error:
        raise MountError(f"{mountpoint}: the mount does not answer ({error}); see: cterafs status") from None
    raise MountError(f"{mountpoint}: the mount ended meanwhile")


def _follow(answers: Iterator[dict[str, Any]], mountpoint: Path, line: Line) -> dict[str, Any]:
    """Shows what the mount says; returns its last word.

    Raises:
        ConfigError, StateError: it refuses.
        MountError: it ended.
    """
    from cterafs.errors import ConfigError, StateError

    answer: dict[str, Any] = {}
    while not answer.get("done"):
        answer = next(answers)
        if "path" in answer:
            line.say(f"{mountpoint}{answer['path']}: {answer['error']}")
        elif "error" in answer:
            kind = ConfigError if answer.get("type") == "ConfigError" else StateError
            raise kind(f"{mountpoint}: {answer['error']}")
        else:
            line.show(answer)
    return answer


class Line:
    """How far it is, on standard error if that is a terminal."""

    def __init__(self) -> None:
        self._is_terminal = sys.stderr.isatty()
        self._began = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._print("")

    def say(self, text: str) -> None:
        """A line that stays."""
        self._print("")
        print(f"cterafs: {printable(text)}", file=sys.stderr)

    def show(self, progress: dict[str, Any]) -> None:
        rate = progress["downloaded"] / max(time.monotonic() - self._began, 0.001)
        share = progress["bytes"] * 100 // progress["of_bytes"] if progress["of_bytes"] else 100
        self._print(
            f"{share:3d} %  {readable(progress['bytes'])} of {readable(progress['of_bytes'])}, "
            f"{progress['files']:,} of {progress['of_files']:,} files  {readable(rate)}/s"
        )

    def _print(self, text: str) -> None:
        if self._is_terminal:
            print(f"\r{text}\x1b[K", end="", file=sys.stderr, flush=True)
