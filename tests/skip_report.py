"""Pytest plugin: collects why tests and whole modules were skipped, and under CI=true lets nothing be skipped but GPU tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

IS_CI = os.environ.get("CI", "").lower() in ("1", "true")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):
    report = yield
    if report.skipped and not hasattr(report, "wasxfail"):
        _judge(report, is_gpu=item.get_closest_marker("gpu") is not None)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector):
    """A module that skips itself, by `importorskip` for instance, has no test that could be asked."""
    report = yield
    if report.skipped:
        _judge(report, is_gpu="gpu" in collector.path.parts)
    return report


def _judge(report: pytest.TestReport | pytest.CollectReport, *, is_gpu: bool) -> None:
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    if IS_CI and not is_gpu:
        report.outcome = "failed"
        report.longrepr = f"{report.nodeid} would be skipped, but CI skips nothing but GPU tests: {reason}"
    elif path := os.environ.get("ABRUZZI_SKIP_REPORT"):
        with Path(path).open("a") as file:
            file.write(reason.removeprefix("Skipped: ").replace("\n", " ") + "\n")
