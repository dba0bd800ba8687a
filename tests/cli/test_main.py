"""What a failure looks like to the user: one line, and a status that says which kind it was."""

import argparse
import inspect
import json
import logging
import os
import stat
import subprocess
import sys

import pytest

from cterafs import errors
from cterafs.cli import logsetup, main
from cterafs.cli.failures import failure, printable
from cterafs.config import LogConfig

BLOCK = errors.BlockInfo(7, 1, 0, 10)


def _raised(error, cause=None):
    """The exception as a caller meets it: raised, with a traceback."""
    try:
        raise error from cause
    except BaseException as caught:
        return caught


def _run(error, *, verbose=False):
    def command(args):
        raise error

    return main.run(argparse.Namespace(run=command, verbose=verbose))


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.ConfigError("x"), 2),
        (errors.AuthenticationError("x"), 3),
        (errors.SessionExpired("x"), 3),
        (errors.AuthorizationError(7), 3),
        (errors.DecryptKeyError(7), 3),
        (errors.PortalConnectionError("x"), 4),
        (errors.PortalUnavailable("x"), 4),
        (errors.PortalTimeout("x"), 4),
        (errors.BlockListConnectionError(7), 4),
        (errors.BlockListTimeout(7), 4),
        (errors.DownloadTimeout(BLOCK), 4),
        (errors.DownloadConnectionError(BLOCK), 4),
        (errors.MountError("x"), 5),
        (errors.StateError("x"), 1),
        (errors.DownloadError(BLOCK), 1),
        (errors.NotFound("x"), 1),
        (_raised(errors.StreamError(7, 100), errors.DownloadTimeout(BLOCK)), 4),
        (_raised(errors.StreamError(7, 100), errors.AuthorizationError(7)), 3),
        (errors.StreamError(7, 100), 1),
        (OSError(28, "No space left on device", "out"), 1),
        (TypeError("a bug"), 1),
        (KeyboardInterrupt(), 130),
        (ExceptionGroup("g", [errors.MountError("x")]), 5),
        (ExceptionGroup("g", [errors.MountError("x"), ExceptionGroup("h", [errors.PortalTimeout("y")])]), 5),
        (BaseExceptionGroup("g", [errors.MountError("x"), KeyboardInterrupt()]), 130),
        (ExceptionGroup("g", [errors.MountError("x"), KeyError("a bug")]), 1),
    ],
)
def test_status(error, status, capsys):
    assert _run(error) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == (0 if status == 130 else 1)
    assert "Traceback" not in err


def test_every_error_of_ours_is_foreseen():
    block_errors = errors.BlockError
    kinds = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.CteraError)]
    for kind in kinds:
        if issubclass(kind, block_errors):
            error = kind(BLOCK)
        elif kind is errors.StreamError:
            error = kind(7, 0)
        else:
            error = kind("x")
        assert not failure(error).is_bug, kind


def test_an_error_of_the_system_names_the_file(capsys):
    _run(_raised(OSError(28, "No space left on device", "out\x1b[2J.bin")))
    assert capsys.readouterr().err == "cterafs: out\\x1b[2J.bin: No space left on device\n"


def test_an_unforeseen_error_keeps_its_text_to_itself_unless_asked(capsys):
    _run(TypeError("hunter2"))
    err = capsys.readouterr().err
    assert "unexpected TypeError at test_main.py" in err
    assert "-v" in err
    assert "hunter2" not in err
    _run(TypeError("a detail"), verbose=True)
    assert "Traceback" in capsys.readouterr().err


def test_a_foreseen_error_is_one_line_even_when_verbose(capsys):
    _run(errors.MountError("busy"), verbose=True)
    assert capsys.readouterr().err == "cterafs: busy\n"


def test_printable():
    assert printable("a\nb\x1b[31m\u202eé") == "a\\nb\\x1b[31m\\u202eé"


def _process(script, **options):
    return subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE, **options)


PRINTS_MUCH = """
import argparse, sys
from cterafs.cli import main
def command(args):
    for number in range(100_000):
        print("a line of output")
    return 0
sys.exit(main.run(argparse.Namespace(run=command, verbose=False)))
"""


def test_a_closed_pipe_ends_the_command_without_a_word():
    process = _process(PRINTS_MUCH, stdout=subprocess.PIPE)
    process.stdout.readline()
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()
    assert (process.wait(), err) == (141, b"")


def test_a_full_disk_is_noticed():
    with open("/dev/full", "wb") as full:  # noqa: PTH123
        process = _process(PRINTS_MUCH, stdout=full)
    _, err = process.communicate()
    assert process.returncode == 1
    assert err == b"cterafs: No space left on device\n"


@pytest.mark.parametrize("arguments", [[], ["no-such-command"], ["--no-such-option"], ["a\x1b[2Jb"]])
def test_wrong_usage_is_one_line_and_status_2(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        main.main(arguments)
    assert caught.value.code == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "\x1b" not in err


@pytest.mark.parametrize("arguments", [["--verb", "status"], ["mount", "--conf", "x", "m"], ["umount", "--laz", "m"]])
def test_options_are_not_abbreviated(arguments):
    with pytest.raises(SystemExit) as caught:
        main.main(arguments)
    assert caught.value.code == 2


@pytest.mark.parametrize(
    ("closed", "status", "out", "err"),
    [
        ("<&-", 2, "", "cterafs: /nofile: cannot be read: No such file or directory\n"),
        ("2>&-", 2, "", ""),
        ("<&- >&- 2>&-", 2, "", ""),
    ],
)
def test_closed_standard_streams_get_no_message_that_is_not_for_them(tmp_path, closed, status, out, err):
    command = f"'{sys.executable}' -m cterafs.cli.main mount --config /nofile '{tmp_path}' {closed}"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (status, out, err)


@pytest.mark.parametrize(
    ("arguments", "verbose"), [(["get", "1"], False), (["-v", "get", "1"], True), (["get", "1", "-v"], True)]
)
def test_verbose_may_stand_on_either_side_of_the_command(arguments, verbose):
    assert main.build_parser().parse_args(arguments).verbose is verbose


def test_version(capsys):
    with pytest.raises(SystemExit) as caught:
        main.main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith("cterafs ")


@pytest.mark.parametrize("command", [[], *([name] for name in main.COMMANDS)])
def test_help_is_quick_because_nothing_heavy_is_imported(command):
    script = (
        "import sys\nfrom cterafs.cli import main\n"
        f"try:\n    main.main({[*command, '--help']!r})\nexcept SystemExit as end:\n    assert end.code == 0\n"
        "heavy = {'httpx', 'trio', 'pyfuse3', 'sqlite3', 'cryptography', 'starlette'} & set(sys.modules)\n"
        "sys.exit(f'imported: {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "usage: cterafs" in done.stdout


class TestLogging:
    @pytest.fixture(autouse=True)
    def _restored(self):
        root = logging.getLogger()
        handlers, level = root.handlers[:], root.level
        yield
        for handler in root.handlers[:]:
            root.removeHandler(handler)
            if handler not in handlers:
                handler.close()
        for handler in handlers:
            root.addHandler(handler)
        root.setLevel(level)
        logging.getLogger("cterafs").setLevel(logging.NOTSET)
        logging.captureWarnings(False)

    def test_a_json_record_is_an_object_on_a_line(self, tmp_path):
        file = tmp_path / "log"
        logsetup.configure(LogConfig(format="json", file=file))
        logging.getLogger("cterafs.test").info("a name: %s", "x\ny\x1b")
        logging.getLogger("cterafs.test").debug("not shown")
        (line,) = file.read_text().splitlines()
        record = json.loads(line)
        assert record["message"] == "a name: x\ny\x1b"
        assert (record["level"], record["logger"]) == ("info", "cterafs.test")
        assert record["time"].endswith("+00:00")

    def test_a_text_record_cannot_be_forged(self, tmp_path):
        file = tmp_path / "log"
        logsetup.configure(LogConfig(file=file))
        logging.getLogger("cterafs.test").warning("a name: %s", "x\n2026-01-01 ERROR forged")
        (line,) = file.read_text().splitlines()
        assert "WARNING cterafs.test: a name: x\\n2026" in line

    def test_the_file_is_private(self, tmp_path):
        logsetup.configure(LogConfig(file=tmp_path / "log"))
        assert stat.S_IMODE((tmp_path / "log").stat().st_mode) == 0o600

    def test_it_is_opened_again_after_a_rotation(self, tmp_path):
        file = tmp_path / "log"
        logsetup.configure(LogConfig(file=file))
        logging.getLogger("cterafs.test").info("before")
        file.rename(tmp_path / "log.1")
        logging.getLogger("cterafs.test").info("after")
        assert "after" in file.read_text()
        assert "before" not in file.read_text()

    def test_verbose_lowers_our_level_only(self, tmp_path):
        file = tmp_path / "log"
        logsetup.configure(LogConfig(file=file), verbose=True)
        logging.getLogger("cterafs.test").debug("ours")
        logging.getLogger("httpx").info("theirs, with a session in it")
        assert "ours" in file.read_text()
        assert "theirs" not in file.read_text()

    def test_a_file_that_cannot_be_opened(self, tmp_path):
        with pytest.raises(errors.ConfigError, match=r"log\.file: cannot open .*: No such file"):
            logsetup.configure(LogConfig(file=tmp_path / "absent/log"))


def test_main_returns_what_the_process_exits_with():
    done = subprocess.run(
        [sys.executable, "-m", "cterafs.cli.main", "nonsense"], capture_output=True, check=False, env=os.environ
    )
    assert done.returncode == 2
