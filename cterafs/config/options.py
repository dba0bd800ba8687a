"""Every option, its type and its default. Sizes are in bytes, durations in seconds.

The second part of an annotation is the function that reads the option; a field without one cannot be configured
directly. Everything that the configuration file, the environment and `-o` accept is derived from these classes.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from cterafs.config import values
from cterafs.config.values import MIB, Address, Reserve, Secret

_FIVE_PERCENT = Reserve(percent=5.0)


@dataclass(frozen=True, slots=True)
class PortalConfig:
    """The control plane: which portal, and who we are there."""

    url: Annotated[str, values.portal_url] = ""
    context: Annotated[str, values.one_of("ServicesPortal", "admin")] = "ServicesPortal"
    username: Annotated[str, values.text] = ""
    password: Annotated[Secret | None, values.secret] = None
    password_file: Annotated[Path | None, values.optional_path] = None
    password_command: Annotated[tuple[str, ...], values.command] = ()
    token: Annotated[Secret | None, values.secret] = None
    folders: Annotated[tuple[int | str, ...], values.folders] = ()
    verify_tls: Annotated[bool, values.boolean] = True
    ca_file: Annotated[Path | None, values.optional_path] = None


@dataclass(frozen=True, slots=True)
class DirectConfig:
    """The data plane: the keys for Direct IO, and how blocks are fetched."""

    access_key_id: Annotated[str, values.text] = ""
    secret_access_key: Annotated[Secret | None, values.secret] = None
    secret_access_key_file: Annotated[Path | None, values.optional_path] = None
    secret_access_key_command: Annotated[tuple[str, ...], values.command] = ()
    bearer: Annotated[Secret | None, values.secret] = None
    storage_hosts: Annotated[tuple[str, ...], values.words] = ()
    verify_tls: Annotated[bool, values.boolean] = True
    ca_file: Annotated[Path | None, values.optional_path] = None
    # 256 threads are the most that one process should spend on waiting for storage.
    workers: Annotated[int, values.between(values.integer, 1, 256)] = 16
    timeout: Annotated[float, values.between(values.duration, 0.1, 3600.0)] = 30.0


@dataclass(frozen=True, slots=True)
class MountConfig:
    """What the mount looks like. A uid or gid of -1 is that of the mounting process."""

    uid: Annotated[int, values.between(values.integer, -1, 2**32 - 2)] = -1
    gid: Annotated[int, values.between(values.integer, -1, 2**32 - 2)] = -1
    umask: Annotated[int, values.umask] = 0o222
    allow_other: Annotated[bool, values.boolean] = False
    layout: Annotated[str, values.one_of("folder", "owner")] = "folder"
    # The restrictions among the standard mount words (nosuid, nodev, noexec) that were given in `-o`.
    flags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CacheConfig:
    """The memory tier holds cached and in-flight blocks together; a disk tier of 0 bytes is off."""

    # Less than 1 MiB could not hold even one block of the usual sizes beside another.
    memory: Annotated[int, values.between(values.size, MIB)] = 512 * MIB
    directory: Annotated[Path, values.path] = Path("~/.cache/cterafs")
    disk: Annotated[int, values.size] = 0
    keep_free: Annotated[Reserve, values.reserve] = _FIVE_PERCENT
    encrypt: Annotated[bool, values.boolean] = False


@dataclass(frozen=True, slots=True)
class ReadaheadConfig:
    """`max` is the most that one reader is ahead of itself; 0 turns read-ahead off."""

    max: Annotated[int, values.size] = 64 * MIB


@dataclass(frozen=True, slots=True)
class StateConfig:
    """Where the namespace, the cursor and the status socket lie."""

    directory: Annotated[Path, values.path] = Path("~/.local/state/cterafs")


@dataclass(frozen=True, slots=True)
class LogConfig:
    """What is logged, how, and where to; no file is standard error."""

    level: Annotated[str, values.one_of("debug", "info", "warning", "error")] = "info"
    format: Annotated[str, values.one_of("text", "json")] = "text"
    file: Annotated[Path | None, values.optional_path] = None


@dataclass(frozen=True, slots=True)
class MetricsConfig:
    """Where Prometheus can ask; None: nowhere."""

    listen: Annotated[Address | None, values.address] = None


@dataclass(frozen=True, slots=True)
class Config:
    """The whole configuration. Built without arguments, it is the defaults, with `~` not yet expanded."""

    portal: PortalConfig = field(default_factory=PortalConfig)
    direct: DirectConfig = field(default_factory=DirectConfig)
    mount: MountConfig = field(default_factory=MountConfig)
    cache: CacheConfig = field(default_factory=CacheConfig)
    readahead: ReadaheadConfig = field(default_factory=ReadaheadConfig)
    state: StateConfig = field(default_factory=StateConfig)
    log: LogConfig = field(default_factory=LogConfig)
    metrics: MetricsConfig = field(default_factory=MetricsConfig)


@dataclass(frozen=True, slots=True)
class Option:
    """One option: `name` is "section.key", `variable` its name in the environment."""

    section: str
    key: str
    parse: Callable[[object], object]
    default: object

    @property
    def name(self) -> str:
        return f"{self.section}.{self.key}"

    @property
    def variable(self) -> str:
        return f"CTERAFS_{self.section}_{self.key}".upper()

    @property
    def is_secret(self) -> bool:
        return self.parse is values.secret

    @property
    def is_list(self) -> bool:
        return self.parse in (values.words, values.folders)


def _options() -> Iterator[Option]:
    for section, section_type in typing.get_type_hints(Config).items():
        hints = typing.get_type_hints(section_type, include_extras=True)
        for entry in dataclasses.fields(section_type):
            if typing.get_origin(hints[entry.name]) is Annotated:
                parse = typing.get_args(hints[entry.name])[1]
                yield Option(section, entry.name, parse, entry.default)


OPTIONS: dict[str, Option] = {option.name: option for option in _options()}
SECTIONS: tuple[str, ...] = tuple(dict.fromkeys(option.section for option in OPTIONS.values()))
