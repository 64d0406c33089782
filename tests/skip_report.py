"""Pytest plugin: collects why tests were skipped, and under CI=true lets nothing be skipped but GPU tests, and what needs the cluster tools
where none were given."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

IS_CI = os.environ.get("CI", "").lower() in ("1", "true")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):
    report = yield
    if report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        is_gpu = item.get_closest_marker("gpu") is not None
        has_no_tools = "no cluster tools" in reason and not os.environ.get("ABRUZZI_CLUSTER_TOOLS")
        if IS_CI and not is_gpu and not has_no_tools:
            report.outcome = "failed"
            report.longrepr = f"{item.nodeid} would be skipped, but CI skips nothing but GPU tests: {reason}"
        elif path := os.environ.get("ABRUZZI_SKIP_REPORT"):
            with Path(path).open("a") as file:
                file.write(reason.removeprefix("Skipped: ").replace("\n", " ") + "\n")
    return report
