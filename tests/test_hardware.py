"""What the machine has free, within the limits of containers."""

from pathlib import Path

import psutil
import pytest

from bertshrink import hardware


def group(folder, limit, use, **stat):
    """A control group of version 2."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{use}\n")
    (folder / "memory.stat").write_text("".join(f"{name} {value}\n" for name, value in stat.items()))


def test_memory_is_what_the_system_says():
    free = hardware.available_memory()
    assert free is not None
    assert 0 < free <= psutil.virtual_memory().total + psutil.swap_memory().total


@pytest.mark.parametrize(
    ("own", "above", "left"),
    [
        (("max", 5), ("max", 5), None),
        ((9000, 5000), ("max", 6000), 4700),
        (("max", 5000), (9000, 6000), 3700),
        ((100, 5000), ("max", 6000), 0),
    ],
)
def test_a_containers_limit_counts_and_its_page_cache_does_not(tmp_path, monkeypatch, own, above, left):
    group(tmp_path, *above, inactive_file=500, active_file=200, shmem=900)
    group(tmp_path / "inner", *own, inactive_file=700)
    monkeypatch.setattr(hardware, "_memory_groups", lambda: [(tmp_path / "inner", NAMES), (tmp_path, NAMES)])
    free = hardware.available_memory()
    assert free == left if left is not None else free > 10_000


NAMES = ("memory.max", "memory.current", "")


def test_groups_of_both_versions_are_read(monkeypatch):
    lines = "4:cpu,cpuacct:/a\n7:memory:/docker/x\n0::/user.slice/y\n"
    monkeypatch.setattr(Path, "read_text", lambda self, **how: lines)
    places = [str(folder) for folder, _ in hardware._memory_groups()]
    assert places == [
        "/sys/fs/cgroup/memory/docker/x",
        "/sys/fs/cgroup/memory/docker",
        "/sys/fs/cgroup/memory",
        "/sys/fs/cgroup/user.slice/y",
        "/sys/fs/cgroup/user.slice",
        "/sys/fs/cgroup",
    ]
