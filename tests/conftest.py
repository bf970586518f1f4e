"""Fixtures of more than one file."""

import gc
import os
import sys

import pytest
from hypothesis import settings

from bertshrink.gates.baseline.ci import VARIABLES
from tests.support.families import SELDOM
from tests.support.fast_loop import LEFT_OUT, Guard

# A change is judged by the same examples on every machine, busy or not; `--hypothesis-profile deep` looks for new ones.
settings.register_profile("steady", derandomize=True, deadline=None)
settings.register_profile("deep", max_examples=2_000, deadline=None)
settings.load_profile("steady")

MODULES = pytest.StashKey[int]()
"""How many modules were imported when the garbage collector was last told to pass over what there is."""


def pytest_addoption(parser):
    group = parser.getgroup("bertshrink")
    group.addoption("--fast", action="store_true", help="only tests that train nothing, start no process, take no time")
    group.addoption("--matrix", action="store_true", help="also the cases that pairs of values stand for otherwise")


def pytest_configure(config):
    if config.getoption("--fast"):
        config.pluginmanager.register(Guard())


def family_of(item):
    """The family that a test is about, where it is about one; the table itself is tested whole."""
    if not hasattr(item, "callspec") or item.path.name == "test_families.py":
        return None
    return item.callspec.params.get("family")


def pytest_collection_modifyitems(config, items):
    unwanted = () if config.getoption("--matrix") else ("matrix",)
    left_out = LEFT_OUT if config.getoption("--fast") else unwanted
    keep, drop = [], []
    for item in items:
        is_seldom = not config.getoption("--matrix") and family_of(item) in SELDOM
        (drop if is_seldom or any(item.get_closest_marker(name) for name in left_out) else keep).append(item)
    config.hook.pytest_deselected(items=drop)
    items[:] = keep


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """Let collections of garbage pass over what was imported before the test.

    Every training asks for two, which would take longer with the objects of torch than its tiny model takes.
    """
    if len(sys.modules) >= item.config.stash.get(MODULES, 0) + 100:
        gc.collect()  # what is garbage now would never be freed
        gc.freeze()
        item.config.stash[MODULES] = len(sys.modules)


@pytest.fixture(scope="session", autouse=True)
def outside_ci():
    """A gate answers otherwise in CI: tests say themselves when they mean that."""
    with pytest.MonkeyPatch.context() as patch:
        for name in VARIABLES:
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(scope="session", autouse=True)
def no_wait_for_the_disk():
    """What this process writes need not reach the disk, as no test cuts the power; it must still be an open file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: os.fstat(handle) and None)
        yield


@pytest.fixture
def one_thread():
    """PyTorch on one thread while the test runs: on tiny models more threads only wait for each other."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
