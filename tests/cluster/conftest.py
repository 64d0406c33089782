"""Fixtures of the cluster suite: one cluster for all of it, a fresh namespace for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster.errors import CannotRunHere
from cluster.handle import ClusterHandle, the_cluster

_HERE = Path(__file__).parent


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Before `-m` chooses: a test that uses the cluster is marked so, and all of them go to one worker (`--dist loadgroup`)."""
    for item in items:
        if _HERE in item.path.parents and "cluster" in getattr(item, "fixturenames", ()):
            item.add_marker("cluster")
            item.add_marker(pytest.mark.xdist_group("cluster"))
    # Those that end the cluster and start it again go first, while there is little in it to put back.
    items.sort(key=lambda item: item.path.name != "test_cluster_lifecycle.py")


@pytest.fixture(scope="session")
def cluster() -> Iterator[ClusterHandle]:
    """A running Kubernetes with its API as administrator. Skips, saying what is missing, where none can run."""
    try:
        with the_cluster() as handle:
            yield handle
    except CannotRunHere as error:
        pytest.skip(f"no test cluster here: {error}")


@pytest.fixture
def namespace(cluster: ClusterHandle, request: pytest.FixtureRequest) -> Iterator[str]:
    """Its name; deleted afterwards. A failed test prints what happened in it."""
    with cluster.new_namespace() as name:
        yield name
        report = request.node.stash.get(FAILED, None)
        if report:
            print(cluster.what_happened(name))


FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):
    report = yield
    if call.when == "call" and report.failed:
        item.stash[FAILED] = True
    return report
