"""The command line of `scripts/soak`."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from pathlib import Path

from soaking.soak import Soak
from soaking.summary import Summary


def main() -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that nothing stays mounted
    parser = argparse.ArgumentParser(
        prog="scripts/soak",
        description="Reads a mount in every way, while its files change and everything goes wrong, and compares each "
        "byte. Exits with 1 if anything was wrong.",
    )
    parser.add_argument("--minutes", type=float, default=10.0, metavar="N", help="of load; default: %(default)g")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of all that is left to chance")
    parser.add_argument("--output", type=Path, default=Path("build/soak"), metavar="DIR", help="default: %(default)s")
    parser.add_argument("--scratch", type=Path, default=Path("/var/tmp"), metavar="DIR", help="default: %(default)s")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="cterafs-soak-", dir=args.scratch) as scratch:
        soak = Soak(args.minutes * 60, args.seed, Path(scratch))
        soak.run()
    summary = Summary(soak)
    print(summary.text())
    print(f"\nwritten: {', '.join(map(str, summary.write(args.output)))}")
    return 1 if soak.ledger.wrongs else 0


sys.exit(main())
