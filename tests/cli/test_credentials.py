"""Secrets from files and commands."""

import os

import pytest

from cterafs import config
from cterafs.config import Secret
from cterafs.errors import ConfigError


@pytest.fixture
def environ(tmp_path):
    return {"HOME": str(tmp_path), "CTERAFS_CONFIG": os.devnull}


@pytest.fixture
def script(tmp_path):
    def script(body, mode=0o755):
        file = tmp_path / "give-password"
        file.write_text(f"#!/bin/sh\n{body}\n")
        file.chmod(mode)
        return file

    return script


@pytest.fixture
def ask(environ):
    def ask(*options, **variables):
        variables = {"CTERAFS_PORTAL_USERNAME": "anna", "PATH": os.environ["PATH"]} | variables
        loaded = config.load(None, environ | variables, list(options))
        return config.portal_credentials(loaded.portal, environ | variables)

    return ask


def test_given_directly(ask):
    assert ask(CTERAFS_PORTAL_PASSWORD="x").password == Secret("x")
    assert ask(CTERAFS_PORTAL_TOKEN="t").token == Secret("t")


def test_a_file_gives_its_first_line(ask, tmp_path):
    file = tmp_path / "password"
    file.write_text("hunter2\r\nuser: anna\n")
    file.chmod(0o400)
    assert ask(f"portal.password_file={file}").password == Secret("hunter2")


@pytest.mark.parametrize(
    ("content", "mode", "complaint"),
    [
        (b"hunter2", 0o644, "others can read"),
        (b"hunter2", 0o620, "others can change"),
        (b"", 0o600, "first line is empty"),
        (b"\xff", 0o600, "not UTF-8"),
    ],
)
def test_a_file_that_does_not_do(ask, tmp_path, content, mode, complaint):
    file = tmp_path / "password"
    file.write_bytes(content)
    file.chmod(mode)
    with pytest.raises(ConfigError, match=complaint) as caught:
        ask(f"portal.password_file={file}")
    assert "hunter2" not in str(caught.value)


def test_an_absent_file(ask, tmp_path):
    with pytest.raises(ConfigError, match=r"portal\.password_file: cannot read .*No such file"):
        ask(f"portal.password_file={tmp_path}/absent")


def test_a_command_gives_its_first_line(ask, script):
    assert ask(f"portal.password_command={script('echo hunter2; echo more')}").password == Secret("hunter2")


def test_a_command_is_not_given_to_a_shell(ask, script, tmp_path):
    program = script('printf "%s" "$1"')
    got = ask(f"portal.password_command={program} '$(touch {tmp_path}/trace); x'").password
    assert got == Secret(f"$(touch {tmp_path}/trace); x")
    assert not (tmp_path / "trace").exists()


def test_a_command_is_found_on_the_path_and_sees_no_secrets(ask, script, tmp_path):
    script('echo "bearer:$CTERAFS_DIRECT_BEARER"')
    variables = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "CTERAFS_DIRECT_BEARER": "b"}
    assert ask("portal.password_command=give-password", **variables).password == Secret("bearer:")


@pytest.mark.parametrize(
    ("body", "mode", "complaint"),
    [
        ("echo hunter2; exit 3", 0o755, "status 3"),
        ("true", 0o755, "first line is empty"),
        ("echo hunter2", 0o777, "others can change"),
        ("echo hunter2", 0o600, "not found, or not executable"),
    ],
)
def test_a_command_that_does_not_do(ask, script, body, mode, complaint):
    with pytest.raises(ConfigError, match=complaint) as caught:
        ask(f"portal.password_command={script(body, mode)} --token hunter2")
    assert "hunter2" not in str(caught.value)


def test_a_command_that_is_no_program(ask, tmp_path):
    file = tmp_path / "empty"
    file.write_bytes(b"\x00\x01")
    file.chmod(0o755)
    with pytest.raises(ConfigError, match="cannot be run"):
        ask(f"portal.password_command={file}")


def test_a_command_that_never_ends(ask, script, monkeypatch):
    monkeypatch.setattr("cterafs.config.credentials.COMMAND_TIMEOUT", 0.1)
    with pytest.raises(ConfigError, match="did not end"):
        ask(f"portal.password_command={script('exec sleep 60')}")


def test_nothing_configured(ask, environ):
    with pytest.raises(ConfigError, match="no password"):
        ask()
    with pytest.raises(ConfigError, match=r"portal\.username"):
        config.portal_credentials(config.load(None, environ).portal, environ)


def test_direct_io_takes_a_key_pair_or_a_bearer_token(environ, tmp_path):
    def ask(**variables):
        return config.direct_credentials(config.load(None, environ | variables).direct, environ)

    pair = ask(CTERAFS_DIRECT_ACCESS_KEY_ID="AK", CTERAFS_DIRECT_SECRET_ACCESS_KEY="SK")
    assert (pair.access_key_id, pair.secret_access_key, pair.bearer) == ("AK", Secret("SK"), None)
    both = ask(CTERAFS_DIRECT_BEARER="B", CTERAFS_DIRECT_SECRET_ACCESS_KEY="SK")
    assert (both.access_key_id, both.secret_access_key, both.bearer) == ("", Secret("SK"), Secret("B"))
    assert ask(CTERAFS_DIRECT_BEARER="B").secret_access_key is None
    with pytest.raises(ConfigError, match="no key for Direct IO"):
        ask()
    with pytest.raises(ConfigError, match="has no secret"):
        ask(CTERAFS_DIRECT_ACCESS_KEY_ID="AK")
