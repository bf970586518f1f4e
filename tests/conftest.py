"""Fixtures of more than one file."""

import pytest

from bertshrink.report.gate.ci import VARIABLES


@pytest.fixture(scope="session", autouse=True)
def outside_ci():
    """A gate answers otherwise in CI: tests say themselves when they mean that."""
    with pytest.MonkeyPatch.context() as patch:
        for name in VARIABLES:
            patch.delenv(name, raising=False)
        yield


@pytest.fixture
def one_thread():
    """PyTorch on one thread while the test runs: on tiny models more threads only wait for each other."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
