"""`scripts/fuzz`: every fuzzer for as long as one likes; what it finds is made as small as it can be, and kept."""

from __future__ import annotations

import argparse
import hashlib
import logging
import sys
import time
import traceback
from pathlib import Path

from every_target import TARGETS
from fuzzing import SEEDS, Target, check, mutated, traced
from hypothesis import HealthCheck, Phase, given, seed, settings

FOUND = Path("build/fuzz")

AT_ONCE = 1000
"""Inputs between two looks at the clock."""


class Round:
    """Inputs for one target, until something is found or the time is up."""

    def __init__(self, target: Target) -> None:
        self.inputs = 0
        self.failing: bytes | None = None
        self._target = target
        self._strategy = mutated(target)

    def run(self, seconds: float, number: int) -> None:
        """Raises what was found; `failing` is then what found it, made small."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            number += 1
            seed(number)(
                settings(
                    max_examples=AT_ONCE,
                    deadline=None,
                    database=None,
                    phases=(Phase.generate, Phase.shrink),
                    suppress_health_check=list(HealthCheck),
                    print_blob=False,
                )(given(self._strategy)(self._feed))
            )()

    def _feed(self, data: bytes) -> None:
        self.inputs += 1
        try:
            check(self._target, data)
        except BaseException:
            self.failing = data
            raise


def keep(target: Target, data: bytes) -> Path:
    """Writes a finding down."""
    path = FOUND / target.name / hashlib.sha256(data).hexdigest()[:12]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def fuzz(target: Target, seconds: float, number: int) -> bool:
    """Whether nothing was found."""
    inputs = Round(target)
    try:
        inputs.run(seconds, number)
    except Exception as error:
        print(f"{target.name:24} FAILED after {inputs.inputs:,} inputs", flush=True)
        traceback.print_exception(error)
        if inputs.failing is not None:
            path = keep(target, inputs.failing)
            print(f"    {inputs.failing!r}")
            print(f"    again with: scripts/fuzz --input {path} {target.name}")
            print(f"    when it is mended: cp {path} {SEEDS.relative_to(Path.cwd())}/{target.name}/", flush=True)
        return False
    print(f"{target.name:24} {inputs.inputs:>10,} inputs, nothing found", flush=True)
    return True


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/fuzz", description="Fuzzes every parser of outside bytes.")
    parser.add_argument("--minutes", type=float, default=10.0, help="in all; by default 10")
    parser.add_argument(
        "--seed", type=int, default=time.time_ns() // 10**9, help="repeats a round; by default the time"
    )
    parser.add_argument("--input", type=Path, metavar="FILE", help="feed this to one target, and nothing else")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"some of: {', '.join(TARGETS)}")
    args = parser.parse_args()
    unknown = set(args.targets) - set(TARGETS)
    if unknown:
        parser.error(f"unknown target {unknown.pop()}; known are {', '.join(TARGETS)}")
    logging.disable()  # a damaged index is warned of, a thousand times a minute
    chosen = [TARGETS[name] for name in args.targets or TARGETS]
    with traced():
        if args.input is not None:
            for target in chosen:
                check(target, args.input.read_bytes())
            return 0
        print(f"seed {args.seed}", flush=True)
        sound = [fuzz(target, 60 * args.minutes / len(chosen), args.seed) for target in chosen]
    return 0 if all(sound) else 1


if __name__ == "__main__":
    sys.exit(main())
