"""Other libraries load what bertshrink writes and give its numbers, each in the environment that it wants.

The environment `optimum` is left to `python benchmarks/loaders.py`: it brings a torch of its own, gigabytes of it.
"""

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bertshrink.techniques.base import Workbench
from bertshrink.techniques.export import Export
from tests.support.tiny import tiny_encoder

pytestmark = [pytest.mark.matrix, pytest.mark.subprocess]

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "loaders.py"
HOMES = {
    "here": ["transformers", "openvino", "sentence-transformers"],
    "fastembed": ["tokenizers", "fastembed"],
    "node": ["transformers.js"],
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A checkpoint and an ONNX file of two tasks."""
    place, made = tmp_path_factory.mktemp("loaded"), []
    for task in ("embedding", "classification"):
        encoder = tiny_encoder("bert", task, num_hidden_layers=2)
        artifact = Export()(encoder, Workbench(None, None, place / f"{task}-work"))
        for model, name in ((encoder, f"{task}-checkpoint"), (artifact, f"{task}-artifact")):
            (place / name).mkdir()
            model.save(place / name)
            made.append(place / name)
    return made


def make_environment(home, cache):
    """The environment, as the benchmark makes it; skips the test where there is no npm or no registry."""
    spec = importlib.util.spec_from_file_location("loaders", SCRIPT)
    loaders = importlib.util.module_from_spec(spec)
    sys.modules["loaders"] = loaders  # a dataclass looks its module up
    spec.loader.exec_module(loaders)
    if home == "node" and shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    try:
        loaders.python_of(home, cache)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"the environment could not be made: {error}")


@pytest.mark.parametrize("home", HOMES)
def test_other_libraries_give_the_same_numbers(home, folders, tmp_path):
    make_environment(home, tmp_path)
    done = subprocess.run(
        [sys.executable, SCRIPT, *folders, "--cache", tmp_path, "--only", *HOMES[home]],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(name in done.stdout for name in HOMES[home])
