"""`.ci/audit`, with a pip-audit that answers as the real one was seen to."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]

SOUND = {"name": "trio", "version": "0.33", "vulns": []}
WEAK = {"name": "lz4", "version": "4.4", "vulns": [{"id": "PYSEC-2026-1", "fix_versions": ["4.5", "5.0"]}]}
SKIPPED = {"name": "httpx", "skip_reason": "Dependency not found on PyPI and could not be audited: httpx (0.28)"}


def audit(directory, stdout, status):
    """Runs it beside a pip-audit that says `stdout`."""
    program = f"import sys\nprint({stdout!r}, end='')\nprint('no such host', file=sys.stderr)\nsys.exit({status})\n"
    (directory / "pip_audit.py").write_text(program)
    return subprocess.run(
        [sys.executable, REPOSITORY / ".ci/audit"],
        env={"PYTHONPATH": str(directory)},
        check=False,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(
    ("packages", "status", "said"),
    [
        ([SOUND], 0, "audit: weaknesses known of 0 of 1 packages\n"),
        ([SOUND, SKIPPED], 0, "audit: weaknesses known of 0 of 1 packages, 1 could not be looked up\n"),
        ([SKIPPED], 0, "audit: skipped, the index of packages knows none of those that are installed\n"),
        (
            [SOUND, WEAK],
            1,
            "audit: lz4 4.4: PYSEC-2026-1, mended in 4.5, 5.0\naudit: weaknesses known of 1 of 2 packages\n",
        ),
    ],
)
def test_what_is_known_is_told(tmp_path, packages, status, said):
    done = audit(tmp_path, json.dumps({"dependencies": packages, "fixes": []}), status)
    assert (done.returncode, done.stdout) == (status, said)


def test_no_index_is_no_failure(tmp_path):
    done = audit(tmp_path, "", 1)
    assert (done.returncode, done.stdout) == (0, "audit: skipped, pip-audit could not tell: no such host\n")


def test_every_dependency_has_a_lowest_and_a_highest_version():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    groups = [
        project["project"]["dependencies"],
        *project["project"]["optional-dependencies"].values(),
        *project["dependency-groups"].values(),
    ]
    unbounded = [entry for group in groups for entry in group if ">=" not in entry or ",<" not in entry]
    assert unbounded == []
