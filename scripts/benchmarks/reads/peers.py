"""Other programs that read from the same store."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.machine import timed
from benchmarks.mounts import foreign
from benchmarks.reads.setting import Setting, read_all
from cterafs.demo.objects import Item

CURL_CONNECTIONS = 8

RCLONE_FLAGS = {
    "defaults": [],
    "32 MiB buffer": ["--buffer-size=32M"],
    "8 streams of 4 MiB": ["--vfs-read-chunk-streams=8", "--vfs-read-chunk-size=4M"],
    "8 streams of 16 MiB": ["--vfs-read-chunk-streams=8", "--vfs-read-chunk-size=16M"],
    "8 streams of 16 MiB, cache on disk": [
        "--vfs-read-chunk-streams=8",
        "--vfs-read-chunk-size=16M",
        "--vfs-cache-mode=full",
    ],
}
"""Settings that its documentation recommends for reading large files; which is best differs between machines."""


def curl(setting: Setting, urls: Sequence[str]) -> float:
    """Seconds in which `curl --parallel` gets these URLs and throws them away: the limit of what this store gives."""
    config = setting.scratch / "curl.conf"
    config.write_text("".join(f'url = "{url}"\noutput = "/dev/null"\n' for url in urls))
    command = ["curl", "-Sf", "--no-progress-meter", "--http1.1", "--cacert", str(setting.store.ca_file)]
    return timed([*command, "-Z", "--parallel-max", str(CURL_CONNECTIONS), "-K", config])


def sdk(setting: Setting, item: Item, workers: int) -> float:
    """Seconds in which CTERA's own client streams a file, its list of blocks included."""
    portal = setting.portal
    job = {
        "url": portal.url,
        "access_key_id": portal.access_key_id,
        "secret_access_key": portal.secret_access_key,
        "file_id": item.file.file_id,
        "size": item.file.size,
        "workers": workers,
    }
    command = [sys.executable, "-m", "benchmarks.reads.sdk_reader"]
    done = subprocess.run(command, input=json.dumps(job), stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout)


@contextmanager
def rclone(setting: Setting, flags: Sequence[str], *, tls: bool) -> Iterator[Path]:
    """A new rclone mount of the store's plain files, with nothing cached."""
    binary = shutil.which("rclone", path=str(Path(sys.executable).parent)) or shutil.which("rclone")
    if binary is None:
        raise FileNotFoundError("rclone is not installed")
    path = setting.scratch / "rclone"
    cache = setting.scratch / "rclone-cache"
    command = [binary, "mount", "--config=", f"--cache-dir={cache}", "--log-level=ERROR", "--read-only", *flags]
    command += [f"--http-url={setting.store.base_url(tls)}/files/", f"--ca-cert={setting.store.ca_file}"]
    command += [":http:", str(path)]
    try:
        with foreign(command, path):
            yield path
    finally:
        shutil.rmtree(cache, ignore_errors=True)


def rclone_cold(setting: Setting, name: str, flags: Sequence[str], *, tls: bool = False) -> float:
    """Seconds of a first sequential read."""
    with rclone(setting, flags, tls=tls) as path:
        return read_all(path / name)
