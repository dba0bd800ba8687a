"""`cterafs portal`, as another program starts it."""

from __future__ import annotations

import argparse
import json
import signal
import ssl
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from cterafs.cli import portal as command
from cterafs.errors import ConfigError


def parse(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    command.add_parser(parser.add_subparsers())
    return parser.parse_args(["portal", "--source", "/tmp", *arguments])


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_it_announces_itself_and_serves_until_a_signal(tmp_path: Path, ending: signal.Signals) -> None:
    (tmp_path / "F").mkdir()
    (tmp_path / "F" / "file").write_bytes(b"content")
    arguments = ["portal", "--source", str(tmp_path), "--listen", "127.0.0.1:0", "--tls"]
    arguments += ["--no-encryption", "--compression", "none"]
    with subprocess.Popen(
        [sys.executable, "-m", "cterafs.cli.main", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        announced = json.loads(process.stdout.readline())
        assert announced.keys() == {
            "url",
            "username",
            "password",
            "access_key_id",
            "secret_access_key",
            "ca_file",
        }
        verify = ssl.create_default_context(cafile=announced["ca_file"])
        with httpx.Client(base_url=announced["url"], verify=verify) as http:
            form = {"j_username": announced["username"], "j_password": announced["password"]}
            http.post("/ServicesPortal/api/login", data=form).raise_for_status()
            entries = http.post("/ServicesPortal/v2/api/metadata/list", json={"folder_ids": []}).json()["entries"]
            key = {"Authorization": f"Bearer {announced['access_key_id']}"}
            chunks = http.get(f"/directio/{entries[-1]['id']}", headers=key).json()["chunks"]
        assert httpx.get(chunks[0]["url"], verify=verify).content == b"content"
        process.send_signal(ending)
        output, problems = process.communicate(timeout=10)
    assert (process.returncode, output, problems) == (0, b"", b"")


def test_its_options_are_read() -> None:
    args = parse("--listen", "[::1]:8443", "--block-size", "variable", "--url-ttl", "2.5")
    assert (args.listen, args.block_size, args.url_ttl) == (("::1", 8443), None, 2.5)
    assert parse().listen == ("127.0.0.1", 8090)
    assert parse("--block-size", "262144").block_size == 262_144


@pytest.mark.parametrize(
    "arguments",
    [
        ["--listen", "nowhere"],
        ["--listen", "host:99999"],
        ["--listen", ":80"],
        ["--block-size", "0"],
        ["--block-size", "999999999999"],
        ["--url-ttl", "-1"],
        ["--compression", "zip"],
    ],
)
def test_options_that_make_no_sense_are_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        parse(*arguments)
    assert raised.value.code == 2
    assert arguments[0] in capsys.readouterr().err


def test_a_directory_or_a_computed_namespace_but_not_both(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        parse("--synthetic", "FILES=10")
    assert raised.value.code == 2
    assert "--synthetic: not allowed with" in capsys.readouterr().err


def test_a_computed_namespace_that_cannot_be_is_refused() -> None:
    args = parse("--listen", "127.0.0.1:0")
    args.source, args.synthetic, args.verbose = None, "FILES=many", False
    with pytest.raises(ConfigError, match="FILES=many"):
        command.run(args)


def test_a_computed_namespace_is_served() -> None:
    arguments = ["portal", "--synthetic", "FILES=10,FOLDERS=2,RATE=100", "--listen", "127.0.0.1:0"]
    with subprocess.Popen([sys.executable, "-m", "cterafs.cli.main", *arguments], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        announced = json.loads(process.stdout.readline())
        with httpx.Client(base_url=announced["url"], timeout=30) as http:
            form = {"j_username": announced["username"], "j_password": announced["password"]}
            http.post("/ServicesPortal/api/login", data=form).raise_for_status()
            page = http.post("/ServicesPortal/v2/api/metadata/list", json={"folder_ids": []}).json()
            assert sum(entry["type"] == "file" for entry in page["entries"]) >= 10
            asked = {"folder_ids": [], "cursor": page["cursor"]}
            assert http.post("/ServicesPortal/v2/api/metadata/longpoll", json=asked).json() == {"changes": True}
        process.terminate()
    assert process.returncode == 0


def test_a_source_that_is_not_a_directory_is_refused(tmp_path: Path) -> None:
    args = parse("--listen", "127.0.0.1:0")
    args.source, args.verbose = tmp_path / "nowhere", False
    with pytest.raises(ConfigError, match="not a directory"):
        command.run(args)
