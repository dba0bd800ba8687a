"""The command line of `scripts/bench`."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from pathlib import Path

from benchmarks import namespace
from benchmarks.machine import MIB
from benchmarks.reads import suite as reads
from benchmarks.report import Report

OUTPUT = Path("build/bench")
SUITES = ("namespace", "reads")
QUICK_ROUNDS, QUICK_SIZE = 3, 256


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that nothing stays mounted
    parser = _parser()
    for words in [sys.argv[1:]] if sys.argv[1:] else [[suite] for suite in SUITES]:
        _run(parser.parse_args(words))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__, epilog="Without a suite, runs all.")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--output", type=Path, default=OUTPUT, metavar="DIR", help="for JSON and plots: %(default)s")
    common.add_argument("--scratch", type=Path, default=Path("/var/tmp"), metavar="DIR", help="default: %(default)s")
    suites = parser.add_subparsers(dest="suite", required=True)
    suite = suites.add_parser("namespace", parents=[common], help="import, memory, listing, changes, the index's size")
    suite.add_argument("--files", type=int, default=1_000_000, metavar="N", help="default: %(default)s")
    suite = suites.add_parser("reads", parents=[common], help="reading beside curl, the SDK, rclone and others")
    suite.add_argument("--rounds", type=int, metavar="N", help="default: 7")
    suite.add_argument("--size", type=int, metavar="MIB", help="of a large file; default: 1024")
    suite.add_argument(
        "--only", type=_cases, default=list(reads.CASES), metavar="CASE[,CASE]", help=", ".join(reads.CASES)
    )
    suite.add_argument("--quick", action="store_true", help=f"{QUICK_ROUNDS} rounds with {QUICK_SIZE} MiB")
    return parser


def _cases(text: str) -> list[str]:
    cases = text.split(",")
    if unknown := set(cases) - set(reads.CASES):
        raise argparse.ArgumentTypeError(f"no such case: {', '.join(unknown)}")
    return cases


def _run(args: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory(prefix="cterafs-bench-", dir=args.scratch) as name:
        scratch = Path(name)
        if args.suite == "namespace":
            report = Report(f"namespace, {args.files:,} files")
        else:
            rounds = args.rounds or (QUICK_ROUNDS if args.quick else 7)
            size = args.size or (QUICK_SIZE if args.quick else 1024)
            report = Report(f"reads, {rounds} rounds, {size:,} MiB")
        try:
            if args.suite == "namespace":
                namespace.run(args.files, scratch, report)
            else:
                reads.run(args.only, rounds, size * MIB, scratch, report)
        finally:
            print(report.table())
            print(f"\nwritten: {', '.join(map(str, report.write(args.output, args.suite)))}")


main()
