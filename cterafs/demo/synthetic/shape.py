"""How many objects a synthetic namespace has, and which lies in which: arithmetic on their numbers.

Numbers begin with 1: the cloud folders' roots, then the directories, then the files. With `FANOUT` 20, a group of eight
directories holds 160 files, from 2 to 50 in each, for real directories are of very different sizes. The last `LARGEST`
files lie together in the last directory.
"""

from __future__ import annotations

import bisect
import itertools
import math
from dataclasses import dataclass, field, fields
from typing import Literal, get_args

MAX_FILES = 200_000_000
"""File ids leave 28 bits to the number of a file."""

DEFAULT_LARGEST = 100_000

Order = Literal["tree", "scattered"]

_SHARES = (1, 2, 3, 5, 7, 10, 16, 20)
"""Parts of 64 that the directories of a group have of its files."""

_GROUP = len(_SHARES)


@dataclass(frozen=True, slots=True)
class Shape:
    """What a synthetic namespace looks like; `parse` reads it from text.

    Attributes:
        files: in all.
        folders: cloud folders.
        fanout: files in a directory, on average.
        depth: of directories below a cloud folder, at most.
        largest: files in the largest directory; by default 100,000, but no more than a tenth of all.
        size: of a file in bytes, the median; they range from a thousandth to a thousand times of it.
        order: of the listing. "tree" has parents before their children; "scattered" has objects that lie together
            listed far apart.
        seed: another one gives other names, sizes and contents.
        rate: changes that happen in a second while it is served.
    """

    files: int = 1_000_000
    folders: int = 10
    fanout: int = 20
    depth: int = 8
    largest: int = -1
    size: int = 65_536
    order: Order = "tree"
    seed: int = 1
    rate: int = 0

    def __post_init__(self) -> None:
        if self.largest < 0:
            object.__setattr__(self, "largest", min(DEFAULT_LARGEST, self.files // 10))
        limits = {
            "files": (0, MAX_FILES),
            "folders": (1, 10_000),
            "fanout": (1, 100_000),
            "depth": (1, 100),
            "largest": (0, self.files),
            "size": (0, 1 << 40),
            "seed": (0, 1 << 32),
            "rate": (0, 100_000),
        }
        for name, (least, most) in limits.items():
            if not least <= getattr(self, name) <= most:
                raise ValueError(f"{name.upper()} must lie between {least} and {most}")

    @classmethod
    def parse(cls, text: str) -> Shape:
        """Reads `FILES=10000000,FANOUT=50`; whatever is left out has its default.

        Raises:
            ValueError: a word that is not known, or a value that cannot be; the message is for people.
        """
        known = [each.name.upper() for each in fields(cls)]
        values: dict[str, int | str] = {}
        for word in filter(None, text.split(",")):
            key, _, value = word.partition("=")
            if key not in known:
                raise ValueError(f"{word!r}: known are {', '.join(known)}")
            if key == "ORDER":
                if value not in get_args(Order):
                    raise ValueError(f"{word!r}: known are {', '.join(get_args(Order))}")
                values["order"] = value
            elif value.isascii() and value.isdecimal() and len(value) <= 15:
                values[key.lower()] = int(value)
            else:
                raise ValueError(f"{word!r}: not a number")
        return cls(**values)  # type: ignore[arg-type]  # checked above


@dataclass(frozen=True, slots=True)
class Plan:
    """The objects of a shape, by number.

    Attributes:
        roots, directories, files: the numbers of each kind.
        total: how many objects there are; the highest number.
    """

    shape: Shape
    roots: range = field(init=False)
    directories: range = field(init=False)
    files: range = field(init=False)
    total: int = field(init=False)
    _branching: int = field(init=False)
    _spread: int = field(init=False)  # files that do not lie in the largest directory
    _places: bytes = field(init=False)  # which directory of its group a file lies in
    _stride: int = field(init=False)

    def __post_init__(self) -> None:
        shape = self.shape
        spread = shape.files - shape.largest
        group = _GROUP * shape.fanout
        ordinary = -(-spread // group) * _GROUP
        first = shape.folders + 1
        ends = [sum(_SHARES[: index + 1]) * group // 64 for index in range(_GROUP)]
        roots, directories = range(1, first), range(first, first + ordinary + bool(shape.largest))
        values = {
            "roots": roots,
            "directories": directories,
            "files": range(directories.stop, directories.stop + shape.files),
            "total": directories.stop + shape.files - 1,
            "_branching": _branching(-(-ordinary // shape.folders), shape.depth),
            "_spread": spread,
            "_places": bytes(bisect.bisect_right(ends, index) for index in range(group)),
            "_stride": _coprime(directories.stop + shape.files - 1),
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @property
    def large_directory(self) -> int | None:
        """The number of the largest directory."""
        return self.directories[-1] if self.shape.largest else None

    def at(self, position: int) -> int:
        """The number of the object that is listed at `position`, from 0."""
        if self.shape.order == "tree":
            return position + 1
        return position * self._stride % self.total + 1

    def parent(self, number: int) -> int:
        """The number of the directory in which an object lies; 0 for a cloud folder's root."""
        if number >= self.files.start:
            index = number - self.files.start
            if index >= self._spread:
                return self.directories[-1]
            group, place = divmod(index, len(self._places))
            return self.directories.start + group * _GROUP + self._places[place]
        if number < self.directories.start:
            return 0
        if number == self.large_directory:
            return self.roots.start
        index, folder = divmod(number - self.directories.start, self.shape.folders)
        if index < self._branching:
            return self.roots[folder]
        return self.directories[(index // self._branching - 1) * self.shape.folders + folder]

    def folder(self, number: int) -> int:
        """The number of the cloud folder's root above an object, or of the object, if it is one."""
        if number >= self.files.start:
            number = self.parent(number)
        if number < self.directories.start:
            return number
        if number == self.large_directory:
            return self.roots.start
        return self.roots[(number - self.directories.start) % self.shape.folders]

    def token(self, number: int) -> int:
        """A small number that tells a directory from other directories, or a file from other files, beside it."""
        if number >= self.files.start:
            index = number - self.files.start
            return index - self._spread if index >= self._spread else index % len(self._places)
        return (number - self.directories.start) // self.shape.folders % self._branching


def _branching(directories: int, depth: int) -> int:
    """Sub-directories that each directory must have, so that so many lie no deeper than `depth`."""
    return next(
        width for width in itertools.count(2) if sum(width**level for level in range(1, depth + 1)) >= directories
    )


def _coprime(total: int) -> int:
    """A step that visits all of `total` places, each far from the one before: near the golden section of it."""
    step = max(1, int(total * 0.6180339887))
    while math.gcd(step, total) != 1:
        step += 1
    return step
