"""Fixtures of more than one file."""

import pytest


@pytest.fixture
def one_thread():
    """PyTorch on one thread while the test runs: on tiny models more threads only wait for each other."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
