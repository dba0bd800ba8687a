"""The layout of the source: imports go one way, files stay readable, no name shadows the standard library."""

import ast
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]

# From the bottom up. A unit imports from the rows above its own, never from its own row.
LAYERS = (
    ("model",),
    ("errors",),
    ("config", "stats", "process", "threads"),
    ("resolver",),
    ("portal", "direct"),
    ("downloading",),
    ("clients", "namespace", "content", "catalog"),
    ("volume",),
    ("kernel", "adapters", "control", "warming"),
    ("app",),
)

ALLOWED = {unit: {below for row in LAYERS[:level] for below in row} for level, row in enumerate(LAYERS) for unit in row}
ALLOWED["demo"] = {"model"}  # it checks our decoder, so it shares none of it
ALLOWED["cli"] = set(ALLOWED)
ALLOWED["__init__"] = set(ALLOWED) - {"cli", "demo"}  # the public names, imported when they are asked for

LONGEST = 400
MEANINGLESS = {"helpers", "utils", "util", "common", "misc"}


def unit_of(path):
    """The unit that a file of the package belongs to: the first part of its path below the package."""
    return path.parts[0].removesuffix(".py")


def imported_names(path, tree):
    """Every dotted name of the package that a module imports, in whatever way and wherever in the file."""
    package = ["cterafs", *path.parts[:-1]]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base = [*base, *([node.module] if node.module else [])]
            yield from (".".join([*base, alias.name]) for alias in node.names)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "cterafs":
            yield f"cterafs.{node.attr}"
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in {
            "import_module",
            "__import__",
        }:
            yield from (str(text.value) for text in node.args if isinstance(text, ast.Constant))


def violations(package):
    """What is wrong in the package at `package`, a line for each."""
    for file in sorted(package.rglob("*.py")):
        path = file.relative_to(package)
        unit = unit_of(path)
        source = file.read_text()
        if unit not in ALLOWED:
            yield f"{path}: {unit} has no place in the layout"
            continue
        if len(path.parts) == 1 and unit in sys.stdlib_module_names:
            yield f"{path}: shadows the standard library"
        if path.stem in MEANINGLESS:
            yield f"{path}: the name does not say what it holds"
        if source.count("\n") > LONGEST:
            yield f"{path}: longer than {LONGEST} lines"
        for name in sorted(set(imported_names(path, ast.parse(source)))):
            top, _, rest = name.partition(".")
            target = rest.partition(".")[0]
            if top == "cterafs" and target not in {"", "__version__", unit, *ALLOWED[unit]}:
                yield f"{path}: imports {name}, and {unit} stands below or beside it"


def test_the_package_keeps_to_its_layout():
    assert list(violations(REPOSITORY / "cterafs")) == []


def test_tests_have_unique_names_so_that_they_need_no_packages():
    files = list((REPOSITORY / "tests").rglob("*.py"))
    names = [file.name for file in files if file.name != "conftest.py"]
    assert sorted(names) == sorted(set(names))
    assert "__init__.py" not in names


def test_tests_are_as_short_as_the_rest():
    files = (REPOSITORY / "tests").rglob("*.py")
    assert [file.name for file in files if file.read_text().count("\n") > LONGEST] == []


def plant(root, files):
    for name, source in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(source)
    return list(violations(root))


@pytest.mark.parametrize(
    ("name", "source", "complaint"),
    [
        ("portal/session.py", "from cterafs.direct import client", "portal stands below or beside"),
        ("portal/session.py", "import cterafs.volume", "imports cterafs.volume"),
        ("portal/session.py", "import cterafs.volume as v", "imports cterafs.volume"),
        ("portal/session.py", "from cterafs import volume", "imports cterafs.volume"),
        ("portal/session.py", "from .. import volume", "imports cterafs.volume"),
        ("portal/session.py", "from ..direct.client import DirectIO", "imports cterafs.direct"),
        ("portal/session.py", "def f():\n    from cterafs.kernel import notify", "imports cterafs.kernel"),
        ("portal/session.py", "if TYPE_CHECKING:\n    from cterafs.app import App", "imports cterafs.app"),
        ("portal/session.py", "import importlib\nimportlib.import_module('cterafs.direct')", "imports cterafs.direct"),
        ("portal/session.py", "import cterafs\ncterafs.DirectIO", "imports cterafs.DirectIO"),
        ("namespace/store.py", "from cterafs.content import cache", "imports cterafs.content"),
        ("content/cache.py", "from cterafs.namespace.store import Store", "imports cterafs.namespace"),
        ("kernel/notify.py", "from cterafs.app import run", "imports cterafs.app"),
        ("app.py", "from cterafs.cli import main", "imports cterafs.cli"),
        ("volume.py", "from cterafs.demo import server", "imports cterafs.demo"),
        ("demo/store.py", "from cterafs.errors import CteraError", "imports cterafs.errors"),
        ("demo/store.py", "from cterafs.direct import codec", "imports cterafs.direct"),
        ("control.py", "from cterafs import app", "imports cterafs.app"),
        ("model.py", "from cterafs import errors", "imports cterafs.errors"),
        ("stats.py", "from cterafs import config", "imports cterafs.config"),
        ("novelty.py", "", "no place in the layout"),
        ("novelty/__init__.py", "", "no place in the layout"),
        ("portal/utils.py", "", "does not say"),
        ("portal/session.py", "\n" * 401, "longer than 400 lines"),
    ],
)
def test_a_planted_violation_is_found(tmp_path, name, source, complaint):
    (found,) = plant(tmp_path, {name: source})
    assert found.startswith(name)
    assert complaint in found


def test_a_module_that_shadows_the_standard_library_is_found(tmp_path, monkeypatch):
    monkeypatch.setitem(ALLOWED, "queue", set())
    assert plant(tmp_path, {"queue.py": ""}) == ["queue.py: shadows the standard library"]


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("portal/session.py", "from cterafs import errors\nfrom cterafs.portal.wire import parse\nimport httpx"),
        ("portal/session.py", "from . import wire\nfrom .wire import parse"),
        ("volume.py", "from cterafs.namespace.store import Store\nfrom cterafs.content import cache"),
        ("demo/server.py", "from cterafs.model import Event\nfrom cterafs.demo import store"),
        ("cli/demo.py", "from cterafs.demo import server\nfrom cterafs.app import run"),
        ("app.py", "import cterafs\nfrom cterafs import control\nprint(cterafs.__version__)"),
        ("portal/queue.py", ""),
    ],
)
def test_what_is_right_is_accepted(tmp_path, name, source):
    assert plant(tmp_path, {name: source}) == []
