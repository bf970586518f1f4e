"""A team's repository in small: an ONNX artifact of a few layers, limits, a lock, reports, and git."""

import base64
import os
import subprocess
from contextlib import contextmanager

import numpy as np
import onnx
import pytest
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from bertshrink.files.atomic import sha256_file
from bertshrink.files.headers import read_onnx
from bertshrink.gates.figures import file_metrics as artifact_file
from bertshrink.report.correctness_bits import Outcomes
from bertshrink.report.measurement import Conditions, Environment, Measurement
from bertshrink.report.report import Report, Snapshot


def floats(low, high):
    """Numbers in between, for Hypothesis; it refuses to make denormal ones where PyTorch has had them flushed."""
    return st.floats(low, high, allow_subnormal=False)


@contextmanager
def read_here():
    """ONNX files are read in this process: a child takes seconds that tests of verdicts need not wait for."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(artifact_file._READERS, ".onnx", read_onnx)
        yield


WIDTH, INNER = 48, 96
NUM_TEXTS = 872

LIMITS = """[tool.bertshrink.gate]
artifact = "dist/model.onnx"
size = "<= 200 kB"
size_growth = "<= 0.5%"
"operator:MatMul" = "<= 0"
new_operators = "<= 0"
"""


def artifact(path, num_layers=3, float_layers=(), seed=0):
    """An int8 model of some layers; those in `float_layers` have lost int8 on their second MatMul."""
    rng = np.random.default_rng(seed)
    nodes, weights, value = [], [], "input"
    for i in range(num_layers):
        for name, shape in (("intermediate", (WIDTH, INNER)), ("output", (INNER, WIDTH))):
            stem, out = f"encoder.layer.{i}.{name}.dense.weight", f"layer{i}.{name}"
            if name == "output" and i in float_layers:
                weights.append(numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), stem))
                nodes.append(helper.make_node("MatMul", [value, stem], [out]))
            else:
                stored = rng.integers(-127, 127, size=shape, dtype=np.int8)
                weights.append(numpy_helper.from_array(stored, f"{stem}.bytes"))
                nodes.append(helper.make_node("MatMulInteger", [value, f"{stem}.bytes"], [out]))
            value = out
    given = [helper.make_tensor_value_info("input", TensorProto.INT8, ["batch", WIDTH])]
    made = [helper.make_tensor_value_info(value, TensorProto.INT32, ["batch", WIDTH])]
    model = helper.make_model(helper.make_graph(nodes, "g", given, made, weights), ir_version=10)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    return path


def outcomes(wrong=()):
    """The outcomes of `NUM_TEXTS` answers, all right but these."""
    right = np.ones(NUM_TEXTS, dtype=bool)
    right[list(wrong)] = False
    return right


def accuracy(right, questions="0123456789abcdef"):
    right = list(right)
    conditions = Conditions(dataset="sst2", split="dev", num_examples=len(right), questions=questions)
    value = sum(right) / len(right)
    more = {"conditions": conditions, "outcomes": Outcomes.of(right)}
    return Measurement.single("accuracy", "fraction", float(value), "higher", **more)


def instructions(value, unit="count", engine="onnxruntime", environment="arm", **conditions):
    where = {"target": "arm64:a76", "threads": 1, "batch": 1, "length": 16, "engine": engine} | conditions
    more = {"conditions": Conditions(**where), "environment": environment, "evidence": "emulated-instructions"}
    return Measurement.single("instructions", unit, value, "lower", **more)


def memory(values, environment="here", engine="onnxruntime"):
    return Measurement(
        metric="memory",
        unit="B",
        samples=tuple((value,) for value in values),
        better="lower",
        conditions=Conditions(engine=engine, threads=2, phase="steady"),
        environment=environment,
    )


def report(path, file, *measurements, version="1.24.1"):
    """A report of an artifact file, written as a run writes it."""
    size = Measurement.single("size", "B", file.stat().st_size, "lower")
    made = Snapshot(
        name="01-quantize",
        label="quantize to int8",
        role="stage",
        kind="artifact",
        facts={"sha256": sha256_file(file)},
        measurements=[size, *measurements],
    )
    machines = {
        name: Environment(id=name, cpu="a cpu", packages={"onnxruntime": version}) for name in ("arm", "here", "there")
    }
    found = Report(
        name="r",
        version="0",
        created="2026-01-01T00:00:00+00:00",
        command="bertshrink run r.yaml",
        model="m",
        task="classification",
        environments=machines,
        snapshots=[made],
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(found.to_json(), encoding="utf-8")
    return path


def git(folder, *arguments):
    """Run git as somebody, on branch main, without the machine's own settings."""
    names = ("GIT_AUTHOR_NAME", "GIT_COMMITTER_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_EMAIL")
    own = dict.fromkeys(names, "nobody@example.org") | {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    done = subprocess.run(
        ["git", "-c", "init.defaultBranch=main", *arguments],
        cwd=folder,
        env={**os.environ, **own},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def commit(folder, message="a change"):
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "--allow-empty", "-m", message)


def bits(text):
    """The bits of base64 text, for a test's own reading of it."""
    return np.unpackbits(np.frombuffer(base64.b64decode(text), np.uint8)).astype(bool)
