from __future__ import annotations

import subprocess
import sys

import pytest

import cterafs


@pytest.mark.parametrize("name", cterafs.__all__)
def test_every_name_is_there(name: str) -> None:
    assert getattr(cterafs, name).__name__.rpartition(".")[2] == name


def test_no_other_name_is() -> None:
    with pytest.raises(AttributeError, match="nothing"):
        cterafs.nothing  # noqa: B018


def test_importing_the_package_imports_no_client() -> None:
    code = "import sys, cterafs; sys.exit(any(name in sys.modules for name in ('httpx', 'anyio', 'cterafs.portal')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
