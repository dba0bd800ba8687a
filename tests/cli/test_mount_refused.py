"""`cterafs mount`, where it cannot even begin."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cterafs import config


@pytest.mark.parametrize("flags", [[], ["-f"]])
def test_a_state_directory_that_others_prepared_is_refused(tmp_path, flags):
    environment = {
        "HOME": str(tmp_path),
        "PATH": os.environ["PATH"],
        "CTERAFS_CONFIG": os.devnull,
        "CTERAFS_PORTAL_URL": "http://127.0.0.1:1",
        "CTERAFS_PORTAL_TOKEN": "token",
        "CTERAFS_DIRECT_BEARER": "bearer",
    }
    directory = config.state_directory(config.load(Path(os.devnull), environment))
    directory.mkdir(parents=True)
    directory.chmod(0o777)
    command = [sys.executable, "-m", "cterafs.cli.main", "mount", *flags, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (
        2,
        f"cterafs: {directory}: others can use this directory; run: chmod 700 {directory}\n",
    )
    assert list(directory.iterdir()) == []
