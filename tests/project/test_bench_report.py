"""The report of a bench: figures beside their targets, for people and for programs."""

import importlib
import json
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def report(monkeypatch):
    monkeypatch.syspath_prepend(REPOSITORY / "scripts")
    return importlib.import_module("benchmarks.report").Report("a bench")


def test_a_figure_is_the_median_beside_its_target(report, tmp_path):
    report.add("speed", "MiB/s", [30, 10, 20], at_least=10)
    report.add("delay", "ms", [5], at_most=4)
    report.add("size", "bytes", [1234])
    speed, delay, size = (line.split() for line in report.table().splitlines()[5:8])
    assert speed == ["speed", "20", "MiB/s", "10", "30", ">=", "10", "2.00", "ok"]
    assert delay == ["delay", "5", "ms", "5", "5", "<=", "4", "0.80", "MISSED"]
    assert size == ["size", "1,234", "bytes", "1,234", "1,234"]
    (file,) = (each for each in report.write(tmp_path, "suite") if each.suffix == ".json")
    written = json.loads(file.read_text())
    assert [figure["passed"] for figure in written["figures"]] == [True, False, None]
    assert written["noise_ms"] == sorted(written["noise_ms"])


def test_a_value_may_be_another_than_the_median(report):
    report.add("delay, p99", "ms", [1, 2, 9], value=9, at_most=10)
    assert report.figures[0].passed
    assert report.figures[0].value == 9


def test_what_cannot_be_measured_yet_is_listed_with_its_reason(report, tmp_path):
    report.add("speed", "MiB/s", [10], at_least=10)
    report.miss("cache on disk", "all of it came from storage")
    row, reason = (line for line in report.table().splitlines() if "cache on disk" in line)
    assert row.split() == ["cache", "on", "disk", "missing"]
    assert reason == "missing: cache on disk: all of it came from storage"
    written = json.loads(report.write(tmp_path, "suite")[0].read_text())
    assert [figure["value"] for figure in written["figures"]] == [10, None]


def test_a_percentile_is_one_of_the_values(monkeypatch):
    monkeypatch.syspath_prepend(REPOSITORY / "scripts")
    percentile = importlib.import_module("benchmarks.report").percentile
    assert percentile(range(1, 101), 99) == 99
    assert percentile(range(1, 1001), 50) == 500
    assert percentile([7], 99) == 7
