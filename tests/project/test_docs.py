"""The documentation names what exists, and its examples work."""

import argparse
import re
from pathlib import Path

import pytest

from cterafs import config
from cterafs.cli import failures, main

REPOSITORY = Path(__file__).parents[2]
MAN = (REPOSITORY / "man/cterafs.1").read_text()
README = (REPOSITORY / "README.md").read_text()


def _section(macro, name):
    """The text of the manual below a heading, up to the next one of its kind or above."""
    _, _, after = MAN.partition(f"\n.{macro} {name}\n")
    return re.split(r"\n\.S[hs] ", after)[0]


def _commands():
    (subparsers,) = (
        action for action in main.build_parser()._actions if isinstance(action, argparse._SubParsersAction)
    )
    return subparsers.choices


@pytest.mark.parametrize("name", main.COMMANDS)
def test_the_manual_has_every_command_with_its_options(name):
    text = _section("Ss", name)
    assert text, name
    common = {"--help", "--verbose", "--config"}
    options = {option for action in _commands()[name]._actions for option in action.option_strings}
    for option in sorted(options - common):
        if option.startswith("--"):
            assert f"Fl -{option.removeprefix('--')}" in text, option


def test_the_manual_has_no_other_command():
    commands = MAN.partition(".Sh COMMANDS")[2].partition(".Sh ")[0]
    assert re.findall(r"^\.Ss (.+)$", commands, re.MULTILINE) == list(main.COMMANDS)


@pytest.mark.parametrize("option", config.OPTIONS.values(), ids=config.OPTIONS)
def test_the_manual_has_every_option(option):
    assert re.search(
        rf"^\.It Va (.* )?{option.key}( |$)|Va {option.key}$", _section("Ss", f"[{option.section}]"), re.MULTILINE
    )


def test_the_manual_has_every_exit_status():
    listed = {int(number) for number in re.findall(r"^\.It (\d+)$", _section("Sh", "EXIT STATUS"), re.MULTILINE)}
    known = {failures.FAILED, failures.USAGE, failures.CREDENTIALS, failures.UNREACHABLE, failures.MOUNTPOINT}
    assert listed == {0, failures.INTERRUPTED, failures.BROKEN_PIPE} | known


def _toml_of_the_readme():
    return re.search(r"```toml\n(.*?)```", README, re.DOTALL)[1]


def _toml_of_the_manual():
    return re.search(r"\.Bd -literal -offset indent\n(.*?)\.Ed", MAN, re.DOTALL)[1]


@pytest.mark.parametrize("example", [_toml_of_the_readme(), _toml_of_the_manual()], ids=["README", "man"])
def test_examples_of_a_configuration_are_accepted(example, tmp_path):
    file = tmp_path / "config.toml"
    file.write_text(example)
    file.chmod(0o600)
    loaded = config.load(file, {"HOME": str(tmp_path)})
    config.require(loaded, "portal.url", "portal.username", "direct.access_key_id")
    assert loaded.portal.password_file or loaded.portal.password_command
    assert loaded.direct.secret_access_key_file == tmp_path / "secret-key"


def test_every_script_that_the_documents_name_exists():
    named = set(re.findall(r"(?:scripts|\.ci)/\w+", README + (REPOSITORY / "CONTRIBUTING.md").read_text()))
    assert named
    for script in named:
        assert (REPOSITORY / script).stat().st_mode & 0o111, script
