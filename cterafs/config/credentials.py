"""Secrets that lie in a file or that a command prints, fetched when they are needed and not before.

These functions block: a command may ask a person for a passphrase.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cterafs.config import trust
from cterafs.config.options import OPTIONS, DirectConfig, PortalConfig
from cterafs.config.values import Secret
from cterafs.errors import ConfigError

# Long enough for a person to type a passphrase, short enough for a boot that nobody watches.
COMMAND_TIMEOUT = 60.0

_SECRET_VARIABLES = frozenset(option.variable for option in OPTIONS.values() if option.is_secret)


@dataclass(frozen=True, slots=True)
class PortalCredentials:
    """Either a token, or a user name with a password."""

    username: str
    password: Secret | None
    token: Secret | None


@dataclass(frozen=True, slots=True)
class DirectCredentials:
    """An access key with its secret, or a bearer token, which may come with the secret that unwraps keys."""

    access_key_id: str
    secret_access_key: Secret | None
    bearer: Secret | None


def portal_credentials(config: PortalConfig, environ: Mapping[str, str]) -> PortalCredentials:
    """What logs in to the portal.

    Args:
        environ: for the command; the secrets in it are not handed on.

    Raises:
        ConfigError: nothing is configured, or its file or command does not give it.
    """
    if config.token is not None:
        return PortalCredentials(config.username, None, config.token)
    if not config.username:
        raise ConfigError("no portal user is configured; set portal.username and portal.password, or portal.token")
    password = _secret("portal.password", config.password, config.password_file, config.password_command, environ)
    if password is None:
        raise ConfigError("no password is configured; set portal.password, or portal.password_file or _command")
    return PortalCredentials(config.username, password, None)


def direct_credentials(config: DirectConfig, environ: Mapping[str, str]) -> DirectCredentials:
    """What reads by Direct IO.

    Args:
        environ: for the command; the secrets in it are not handed on.

    Raises:
        ConfigError: nothing is configured, or its file or command does not give it.
    """
    name, file, command = "direct.secret_access_key", config.secret_access_key_file, config.secret_access_key_command
    if config.bearer is None and not config.access_key_id:
        raise ConfigError(f"no key for Direct IO is configured; set direct.access_key_id and {name}")
    key = _secret(name, config.secret_access_key, file, command, environ)
    if config.bearer is None and key is None:
        raise ConfigError(f"direct.access_key_id has no secret; set {name}, or {name}_file or _command")
    return DirectCredentials(config.access_key_id, key, config.bearer)


def without_secrets(environ: Mapping[str, str]) -> dict[str, str]:
    """A copy of the environment that a child process may see."""
    return {name: value for name, value in environ.items() if name not in _SECRET_VARIABLES}


def strip_secrets(environ: MutableMapping[str, str]) -> None:
    """Remove our secrets from the environment, once they have been loaded."""
    for name in _SECRET_VARIABLES:
        environ.pop(name, None)


def _secret(
    name: str, value: Secret | None, file: Path | None, command: Sequence[str], environ: Mapping[str, str]
) -> Secret | None:
    if value is not None:
        return value
    if file is not None:
        return _first_line(f"{name}_file", _read(f"{name}_file", file))
    if command:
        return _first_line(f"{name}_command", _run(f"{name}_command", command, environ))
    return None


def _read(name: str, file: Path) -> bytes:
    try:
        content, info = trust.read(file)
    except OSError as error:
        raise ConfigError(f"{name}: cannot read {file}: {error.strerror}") from None
    trust.refuse_writable(file, info)
    trust.refuse_readable(file, info)
    return content


def _run(name: str, command: Sequence[str], environ: Mapping[str, str]) -> bytes:
    """The command's standard output. Its arguments never appear in an error: they may be telling."""
    program = shutil.which(command[0], path=environ.get("PATH"))
    if program is None:
        raise ConfigError(f"{name}: {command[0]} is not found, or not executable")
    trust.refuse_writable(Path(program), Path(program).stat())
    try:
        done = subprocess.run(
            [program, *command[1:]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            env=without_secrets(environ),
            timeout=COMMAND_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ConfigError(f"{name}: {program} did not end within {COMMAND_TIMEOUT:.0f} s") from None
    except OSError as error:
        raise ConfigError(f"{name}: {program} cannot be run: {error.strerror}") from None
    if done.returncode != 0:
        raise ConfigError(f"{name}: {program} failed with status {done.returncode}; try the command by hand")
    return done.stdout


def _first_line(name: str, content: bytes) -> Secret:
    """The first line is the secret, as `pass show` has it; anything may follow."""
    try:
        line = content.decode().partition("\n")[0].removesuffix("\r")
    except UnicodeDecodeError:
        raise ConfigError(f"{name}: the secret is not UTF-8 text") from None
    if not line:
        raise ConfigError(f"{name}: the first line is empty, and it should be the secret")
    return Secret(line)
