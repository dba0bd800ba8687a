"""The configuration file, the environment and `-o`, put together: each overrides the one before."""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import pwd
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cterafs.config import trust
from cterafs.config.options import OPTIONS, SECTIONS, Config, Option
from cterafs.config.values import shown
from cterafs.errors import ConfigError

Values = dict[str, Any]
"""Option name -> parsed value, of one layer or of all."""

# Of each group at most one member applies: the one that the highest layer sets.
_ALTERNATIVES = (
    ("portal.password", "portal.password_file", "portal.password_command", "portal.token"),
    ("direct.secret_access_key", "direct.secret_access_key_file", "direct.secret_access_key_command"),
    ("direct.access_key_id", "direct.bearer"),
)

# What mount(8), mount.fuse and systemd pass on, with no meaning for us. `rw` and `suid`, `dev` are there because they
# add them by themselves; the mount is read-only, nosuid and nodev all the same.
_IGNORED_WORDS = re.compile(
    r"ro|rw|defaults|(no)?auto|(no)?users?|owner|group|nofail|_netdev|suid|dev|exec|a?sync|default_permissions"
    r"|(no)?((dir|rel|strict)?a|lazy)time|(user|comment)=.*|[xX]-.*"
)
_FLAG_WORDS = ("nosuid", "nodev", "noexec")
_MOUNT_KEYS = ("uid", "gid", "umask", "allow_other")

_CONFIG_VARIABLE = "CTERAFS_CONFIG"


def load(path: Path | None, environ: Mapping[str, str], options: Sequence[str] = ()) -> Config:
    """The configuration: file < environment < options.

    Args:
        path: of the file; None takes `$CTERAFS_CONFIG`, `~/.config/cterafs/config.toml` or
            `/etc/cterafs/config.toml`, whichever is the first to exist. A file that was named must exist.
        environ: the environment, read and not changed.
        options: the arguments of `-o`, each "key=value,key=value"; `\\,` is a comma inside a value.

    Raises:
        ConfigError: with one line that says what to change.
    """
    home = _home(environ)
    file = _find(path, environ, home)
    layers = [
        _from_file(file, home) if file is not None else {},
        _from_environment(environ, home),
        _from_options(options, home),
    ]
    merged: Values = {name: _anchored(option.default, home, home) for name, option in OPTIONS.items()}
    for layer in layers:
        for group in _ALTERNATIVES:
            if any(name in layer for name in group):
                merged.update({name: OPTIONS[name].default for name in group})
        merged.update(layer)
    return _build(merged)


def require(config: Config, *names: str) -> None:
    """Raise ConfigError unless each of the named options ("section.key") is set."""
    for name in names:
        section, _, key = name.partition(".")
        if not getattr(getattr(config, section), key):
            raise ConfigError(
                f"{name} is not set; put it into ~/.config/cterafs/config.toml, or set {OPTIONS[name].variable}"
            )


def state_directory(config: Config) -> Path:
    """Where this configuration keeps its state: one directory per portal, context, user and selection of folders.

    The port takes part in the hash where it is not the scheme's own, because it names another portal. With a token
    and no user name, the user is unknown, and takes no part.

    Raises:
        ConfigError: portal.url is not set.
    """
    require(config, "portal.url")
    portal = urlsplit(config.portal.url)
    identity: list[object] = [config.portal.username, sorted(str(folder) for folder in config.portal.folders)]
    if portal.port not in (None, {"https": 443, "http": 80}[portal.scheme]):
        identity.append(portal.port)
    digest = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]
    return config.state.directory / f"{portal.hostname}-{config.portal.context}-{digest}"


def _home(environ: Mapping[str, str]) -> Path:
    home = environ.get("HOME", "")
    if not home.startswith("/"):
        try:
            home = pwd.getpwuid(os.getuid()).pw_dir
        except KeyError:
            raise ConfigError("this user has no home directory; set HOME") from None
    return Path(home)


def _find(path: Path | None, environ: Mapping[str, str], home: Path) -> Path | None:
    if path is None and environ.get(_CONFIG_VARIABLE):
        path = Path(environ[_CONFIG_VARIABLE])
    if path is not None:
        return Path(_anchored(path, Path.cwd(), home))
    for candidate in (home / ".config/cterafs/config.toml", Path("/etc/cterafs/config.toml")):
        if os.path.lexists(candidate):
            return candidate
    return None


def _from_file(file: Path, home: Path) -> Values:
    try:
        content, info = trust.read(file)
        tables = tomllib.loads(content.decode())
    except ConfigError:
        raise
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{file}: this is not UTF-8 text") from None
    except (tomllib.TOMLDecodeError, RecursionError, ValueError) as error:
        raise ConfigError(f"{file}: this is not TOML: {error}") from None
    layer: Values = {}
    for section, table in tables.items():
        if not isinstance(table, dict):
            names = ", ".join(f"[{name}]" for name in SECTIONS)
            raise ConfigError(f"{file}: {shown(section)} is outside of a section; put it below one of {names}")
        if section not in SECTIONS:
            raise ConfigError(f"{file}: unknown section {shown(section)}{_suggestion(section, SECTIONS)}")
        for key, value in table.items():
            option = _option(f"{section}.{key}", f"{file}: ")
            layer[option.name] = _parse(option, value, f"{file}: {option.name}", file.parent, home)
    _refuse_contradictions(layer, f"{file}: ")
    if any(OPTIONS[name].is_secret and value is not None for name, value in layer.items()):
        trust.refuse_readable(file, info)
    if layer:  # who can change it decides what we run, where secrets are sent, what is written where, and who reads
        trust.refuse_writable(file, info)
    return layer


def _from_environment(environ: Mapping[str, str], home: Path) -> Values:
    variables = {option.variable: option for option in OPTIONS.values()}
    layer: Values = {}
    for variable, text in environ.items():
        if not variable.startswith("CTERAFS_") or variable == _CONFIG_VARIABLE:
            continue
        option = variables.get(variable)
        if option is None:
            raise ConfigError(
                f"unknown variable {shown(variable)} in the environment{_suggestion(variable, variables)}"
            )
        value = _split(text) if option.is_list else text
        layer[option.name] = _parse(option, value, variable, Path.cwd(), home)
    _refuse_contradictions(layer, "environment: ")
    return layer


def _from_options(options: Sequence[str], home: Path) -> Values:
    """Repeating the key of a list adds to the list; repeating any other replaces it, as mount(8) does."""
    layer: Values = {}
    flags: list[str] = []
    lists: dict[str, list[str]] = {}
    for word in (word for argument in options for word in _split(argument)):
        if _IGNORED_WORDS.fullmatch(word):
            continue
        if word in _FLAG_WORDS:
            flags.append(word)
            continue
        key, equals, text = word.partition("=")
        name = f"mount.{key}" if key in _MOUNT_KEYS else key
        option = _option(name, "-o ")
        if option.is_secret:
            raise ConfigError(
                f"-o {name}: other users can read a command line, so no secret is taken from it; "
                f"put it into the configuration file, or into {option.variable}"
            )
        if not equals and not isinstance(option.default, bool):
            raise ConfigError(f"-o {name}: a value is missing; write {name}=VALUE")
        value: object = text if equals else True
        if option.is_list:
            value = lists.setdefault(name, [])
            lists[name].append(text)
        layer[name] = _parse(option, value, f"-o {name}", Path.cwd(), home)
    _refuse_contradictions(layer, "-o ")
    if flags:
        layer["mount.flags"] = tuple(dict.fromkeys(flags))
    return layer


def _split(text: str) -> list[str]:
    """The items between commas; a backslash takes the meaning from a comma or a backslash after it."""
    items = [re.sub(r"\\([,\\])", r"\1", item) for item in re.findall(r"(?:\\.|[^,\\]|\\$)+", text, re.DOTALL)]
    return [item.strip() for item in items if item.strip()]


def _option(name: str, where: str) -> Option:
    option = OPTIONS.get(name)
    if option is None:
        raise ConfigError(f"{where}unknown option {shown(name)}{_suggestion(name, OPTIONS)}")
    return option


def _suggestion(word: str, known: Iterable[str]) -> str:
    """The known word that was meant: a longer one, a similar one, or a key that came without its section.

    Where none is near: those of the same section, or the sections.
    """
    names = list(known)
    close = [name for name in names if word and name.startswith(word)]
    close = close or difflib.get_close_matches(word, names, n=1, cutoff=0.7)
    close = close or [name for name in names if name.rpartition(".")[2] == word]
    if close:
        return f"; did you mean {close[0]}?"
    beside = [name for name in names if "." in word and name.startswith(f"{word.partition('.')[0]}.")]
    return f"; known options are {', '.join(beside)}" if beside else f"; known sections are {', '.join(SECTIONS)}"


def _parse(option: Option, value: object, where: str, base: Path, home: Path) -> object:
    try:
        return _anchored(option.parse(value), base, home)
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from None


def _anchored(value: Any, base: Path, home: Path) -> Any:
    """A path made absolute, with `~` expanded: the daemon works in another directory. Anything else as it is."""
    if not isinstance(value, Path):
        return value
    if value.parts[:1] == ("~",):
        return home.joinpath(*value.parts[1:])
    return base.absolute() / value


def _refuse_contradictions(layer: Values, where: str) -> None:
    for group in _ALTERNATIVES:
        given = [name for name in group if layer.get(name)]
        if len(given) > 1:
            raise ConfigError(f"{where}{given[0]} and {given[1]} exclude each other; keep one of them")


def _build(merged: Values) -> Config:
    config = Config()
    sections: dict[str, Any] = {}
    for section in SECTIONS:
        prefix = f"{section}."
        changes = {name.removeprefix(prefix): value for name, value in merged.items() if name.startswith(prefix)}
        sections[section] = replace(getattr(config, section), **changes)
    return replace(config, **sections)
