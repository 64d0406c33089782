"""Where the kernel's count of memory kills is found, by what /proc and /sys say."""

from __future__ import annotations

import pytest

from abruzzi_operators.launcher import procfs

V2 = {
    "/proc/self/cgroup": "0::/user.slice/app.scope\n",
    "/sys/fs/cgroup/user.slice/app.scope/memory.events": "low 0\noom 4\noom_kill 3\n",
}
V2_IN_A_CONTAINER = {"/proc/self/cgroup": "0::/docker/abc\n", "/sys/fs/cgroup/memory.events": "oom_kill 2\n"}
V1 = {
    "/proc/self/cgroup": "5:cpu:/\n4:memory:/jobs/a\n0::/\n",
    "/sys/fs/cgroup/memory/jobs/a/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 7\n",
}
NO_GROUP = {"/proc/self/cgroup": "0::/\n", "/proc/vmstat": "nr_free_pages 1\noom_kill 5\n"}


@pytest.mark.parametrize(
    ("files", "count"), [(V2, 3), (V2_IN_A_CONTAINER, 2), (V1, 7), (NO_GROUP, 5), ({}, None)],
    ids=["v2", "v2 in a container", "v1", "no group of its own", "nothing"],
)  # fmt: skip
def test_the_kernels_count_is_found(files: dict[str, str], count: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(procfs, "_read", lambda path: files.get(path, ""))
    assert procfs.memory_kills() == count
