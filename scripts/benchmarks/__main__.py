"""The command line of `scripts/bench`."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from benchmarks import namespace
from benchmarks.report import Report

OUTPUT = Path("build/bench")


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    suites = parser.add_subparsers(dest="suite", required=True)
    suite = suites.add_parser("namespace", help="import, memory, listing, changes and the index's size")
    suite.add_argument("--files", type=int, default=1_000_000, metavar="N", help="default: %(default)s")
    suite.add_argument("--output", type=Path, default=OUTPUT, metavar="DIR", help="for JSON and plots: %(default)s")
    args = parser.parse_args()

    report = Report(f"namespace, {args.files:,} files")
    with tempfile.TemporaryDirectory(prefix="cterafs-bench-") as scratch:
        try:
            namespace.run(args.files, Path(scratch), report)
        finally:
            print(report.table())
            print(f"\nwritten: {', '.join(map(str, report.write(args.output, args.suite)))}")


main()
