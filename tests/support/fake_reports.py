"""A made-up report: a teacher, its half before and after training, its export, its int8 form."""

import random

from bertshrink.report.measurement import Conditions, Environment, Evidence, Measurement, MeasurementWarning
from bertshrink.report.report import Component, Report, Snapshot

EVIL = "<script>alert('x')</script>"
SHAPES = ((1, 16), (1, 128), (8, 128))
NUM_ROUNDS = 10
DISTURBED = MeasurementWarning(kind="others_busy", values=(0.3,))


def exact(metric, unit, value, better, **conditions):
    return Measurement.single(metric, unit, value, better, conditions=Conditions(**conditions), environment=None)


def timed(
    metric, value, engine, seed, unit="s", noise=0.03, num_samples=40, rounds=NUM_ROUNDS, warnings=(), **conditions
):
    """Samples around `value` with a spread between rounds, one within, and a tail."""
    dice = random.Random(f"{metric} {seed} {conditions}")
    samples = []
    for _ in range(rounds):
        centre = value * (1 + noise * dice.gauss(0, 0.5))
        samples.append(tuple(centre * (1 + noise * dice.gammavariate(1.5, 1)) for _ in range(num_samples)))
    return Measurement(
        metric=metric,
        unit=unit,
        samples=tuple(samples),
        better="lower",
        conditions=Conditions(engine=engine, threads=2, phase="steady", **conditions),
        evidence=Evidence.MEASURED_HOST,
        environment="a1b2c3",
        warnings=warnings,
    )


def quality(**values):
    where = {"dataset": "sst2", "split": "dev", "num_examples": 872}
    return [
        exact(name, "" if name == "spearman" else "fraction", value, "higher", **where)
        for name, value in values.items()
    ]


def speed(engine, seed, times_ms, memory_mb, warnings=()):
    measured = [
        timed("latency", ms / 1e3, engine, seed, batch=b, length=n, warnings=warnings)
        for (b, n), ms in zip(SHAPES, times_ms, strict=True)
    ]
    memory = timed("memory", memory_mb * 1e6, engine, seed, unit="B", noise=0.004, num_samples=1)
    loading = memory.model_copy(update={"conditions": Conditions(engine=engine, threads=2, phase="load")})
    return [*measured, loading, memory]


def components(embeddings_m, attention_m, ffn_m, num_bytes=4):
    parts = {"embeddings": embeddings_m, "attention": attention_m, "feed-forward": ffn_m, "head": 0.15}
    return [
        Component(name=k, num_parameters=int(v * 1e6), num_bytes=int(v * 1e6) * num_bytes) for k, v in parts.items()
    ]


def history():
    dice = random.Random(0)
    return [
        {
            "step": float(step),
            "loss": 2.4 * 0.985**step + 0.5 + dice.gauss(0, 0.04),
            "hard": 0.7 * 0.98**step + 0.2 + dice.gauss(0, 0.02),
            "soft": 1.1 * 0.985**step + 0.2 + dice.gauss(0, 0.02),
            "cosine": 0.6 * 0.99**step + 0.1 + dice.gauss(0, 0.01),
            "learning_rate": 5e-5,
            "tokens_per_s": 3500.0,
        }
        for step in range(0, 868, 4)
    ]


def snapshots(evil):
    teacher = Snapshot(
        name="teacher",
        label="minilm-l6-sst2",
        role="reference",
        kind="encoder",
        facts={"family": "bert", "num_layers": 6, "hidden_size": 384},
        components=components(11.9, 3.55, 7.1),
        measurements=[
            exact("size", "B", 90_870_000, "lower"),
            exact("parameters", "count", 22_713_986, "lower"),
            exact("flops_per_token", "count", 21.3e6, "lower"),
            *quality(accuracy=0.8979, spearman=1.0),
            *speed("torch", 0, (5.2, 17.6, 124), 412),
        ],
    )
    untrained = Snapshot(
        name="01-distill/untrained",
        label="halved, untrained",
        role="baseline",
        kind="encoder",
        measurements=quality(accuracy=0.7844, agreement=0.7993, spearman=0.61),
    )
    distill = Snapshot(
        name="01-distill",
        label="distill to 3 layers" + evil,
        role="stage",
        kind="encoder",
        technique="distill",
        settings={
            "layers": 3,
            "epochs": 4,
            "temperature": 2.0,
            "weights": {"soft": 5, "cosine": 1},
            "allow_unsharing": None,
            "x": evil,
        },
        path="01-distill/model",
        components=components(11.9, 1.78, 3.55),
        measurements=[
            exact("size", "B", 69_570_000, "lower"),
            exact("parameters", "count", 17_390_000, "lower"),
            exact("flops_per_token", "count", 10.6e6, "lower"),
            *quality(accuracy=0.8876, agreement=0.9461, spearman=0.872),
            *speed("torch", 1, (2.9, 9.4, 66), 368),
            exact("novelty_score" + evil, "", 3.25, "neither"),
        ],
        notes=["Kept layers 2, 4, 6 of 6.", "Training took 868 steps." + evil],
        history=history(),
        seconds=612.4,
        paper="arXiv:1910.01108",
    )
    export = Snapshot(
        name="02-export",
        label="export to ONNX",
        role="stage",
        kind="artifact",
        technique="export",
        settings={"opset": 20},
        path="02-export/model.onnx",
        components=components(11.9, 1.78, 3.55),
        measurements=[
            exact("size", "B", 69_640_000, "lower"),
            exact("parameters", "count", 17_390_000, "lower"),
            *quality(accuracy=0.8876, agreement=0.9461, spearman=0.872),
            *speed("onnxruntime", 2, (1.9, 8.8, 63), 204),
        ],
        notes=["Largest difference to PyTorch 3.1e-06 over 6 shapes."],
        seconds=14.2,
    )
    quantize = Snapshot(
        name="03-quantize",
        label="quantize to int8",
        role="stage",
        kind="artifact",
        technique="quantize",
        settings={"per_channel": True},
        path="03-quantize/model.onnx",
        components=components(11.9, 1.78, 3.55, num_bytes=1),
        measurements=[
            exact("size", "B", 17_820_000, "lower"),
            *quality(accuracy=0.8864, agreement=0.9427, spearman=0.866),
            *speed("onnxruntime", 3, (0.9, 4.6, 33), 128, warnings=(DISTURBED,)),
        ],
        seconds=8.9,
        paper="arXiv:1712.05877",
    )
    return [untrained, teacher, distill, export, quantize]


def make(evil=""):
    machine = Environment(
        id="a1b2c3",
        cpu="Intel Xeon",
        isa=("avx512f", "avx512_vnni", "amx_int8"),
        num_cores=2,
        memory_bytes=24_000_000_000,
        system="Linux 6.1 x86_64",
        python="3.11.2",
        packages={"torch": "2.13.0", "onnxruntime": "1.31.1", "transformers": "5.23.0"},
    )
    return Report(
        name="sst2-edge" + evil,
        version="0.1.0",
        created="2026-11-20T12:00:00Z",
        command="bertshrink run recipes/sst2-edge.yaml",
        model="teachers/minilm-l6-sst2",
        task="classification",
        data={"name": "sst2", "fingerprint": "9f2ab7d04c11", "rows": {"train": 6920, "dev": 872}},
        recipe="model: teachers/minilm-l6-sst2\nstages:\n  - distill: {layers: 3}\n  - export\n  - quantize\n" + evil,
        environments={"a1b2c3": machine},
        snapshots=snapshots(evil),
        notes=["Measured while another program ran." + evil],
    )
