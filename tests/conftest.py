"""Fixtures of more than one file."""

import pytest
from hypothesis import settings

from bertshrink.gates.baseline.ci import VARIABLES

# A change is judged by the same examples on every machine, busy or not; `--hypothesis-profile deep` looks for new ones.
settings.register_profile("steady", derandomize=True, deadline=None)
settings.register_profile("deep", max_examples=2_000, deadline=None)
settings.load_profile("steady")


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
