"""Made-up reports of `bench`: three models on this machine, on texts, on several targets, invalid, too short."""

from bertshrink.report.measurement import Conditions, Environment, Evidence, Measurement, MeasurementWarning
from bertshrink.report.report import Report, Snapshot
from tests.support.fake_reports import components, exact, quality, timed

CASES = ((1, 32), (1, 128), (8, 32), (8, 128))
PHASES = ("import", "load", "first", "steady")
MODELS = {
    # name: label, engine, size in bytes, speed against the first, memory of the engine and the model in MB
    "reference": ("all-MiniLM-L6-v2", "torch", 90.9e6, 1.0, (366, 169)),
    "onnx": ("minilm-onnx", "onnxruntime", 90.3e6, 1.02, (55, 173)),
    "int8": ("minilm-int8", "onnxruntime", 23.0e6, 2.6, (55, 90)),
}
MACHINES = {"cpu": "a1b2c3", "gpu": "a1b2c3", "arm64:a76": "a1b2c3", "ssh://pi@board": "p1p1p1"}


def moved(m, **conditions):
    """The measurement under further conditions."""
    return m.model_copy(update={"conditions": m.conditions.model_copy(update=conditions)})


def running(
    name, target="cpu", times=1.0, rounds=10, num_samples=70, validity="valid", warnings=(), shapes=CASES, **where
):
    """Latencies, starting times, memory by phase and throughput of one model on one target."""
    _, engine, _, speed, (own_mb, model_mb) = MODELS[name]
    seed = (name, target)
    how = {"target": target, "precision": "float32"}
    common = {"rounds": rounds, "warnings": warnings}
    cases = [where] if where else [{"batch": batch, "length": length} for batch, length in shapes]
    found = []
    for case in cases:
        work = case["batch"] * (case.get("length") or 40) / 32
        seconds = times * 0.004 * work**0.9 / speed
        found.append(timed("latency", seconds, engine, seed, num_samples=num_samples, **how, **case, **common))
        if "workload" in case:
            whole = timed(
                "latency_whole", 1.2 * seconds, engine, seed, num_samples=num_samples, **how, **case, **common
            )
            rate = timed("throughput", 900 / seconds, engine, seed, "token/s", num_samples=1, **how, **case, **common)
            found += [whole, rate.model_copy(update={"better": "higher"})]
    load = timed("load_time", 0.3 / speed, engine, seed, num_samples=1, **how, **common)
    first = timed("first_inference", 0.02 / speed, engine, seed, num_samples=1, **how, **cases[0], **common)
    found += [moved(load, phase="load"), moved(first, phase="first")]
    for phase, part in zip(PHASES, (0.0, 0.6, 0.8, 1.0), strict=True):
        peak, noise = (own_mb + part * model_mb) * 1e6, {"unit": "B", "noise": 0.002, "num_samples": 1}
        for metric, size in (("memory", peak), ("memory_shared", 0.8 * peak)):
            found.append(moved(timed(metric, size, engine, (seed, phase), **noise, **how, **common), phase=phase))
    machine = MACHINES.get(target, "a1b2c3")
    return [m.model_copy(update={"validity": validity, "environment": machine}) for m in found]


def model(name, measurements, **more):
    label, engine, size, _, _ = MODELS[name]
    own = [exact("size", "B", size, "lower"), exact("parameters", "count", 22.7e6, "lower")]
    return Snapshot(
        name=name,
        label=label,
        role="reference" if name == "reference" else "compared",
        kind="encoder" if engine == "torch" else "artifact",
        components=components(11.9, 3.55, 7.1),
        measurements=[*own, *more.pop("quality", []), *measurements],
        **more,
    )


def report(snapshots, environments=("a1b2c3",)):
    machines = {
        "a1b2c3": Environment(id="a1b2c3", cpu="AMD EPYC", num_cores=2, memory_bytes=24_000_000_000, isa=("avx2",)),
        "p1p1p1": Environment(id="p1p1p1", cpu="Cortex-A76", num_cores=4, memory_bytes=8_000_000_000),
    }
    return Report(
        name="bench-all-MiniLM-L6-v2",
        version="0.1.0",
        created="2026-11-21T12:00:00Z",
        command="bertshrink bench sentence-transformers/all-MiniLM-L6-v2 minilm-onnx minilm-int8",
        model="sentence-transformers/all-MiniLM-L6-v2",
        task="embedding",
        environments={key: machines[key] for key in environments},
        snapshots=snapshots,
    )


def scores(name):
    return quality(spearman={"reference": 1.0, "onnx": 1.0, "int8": 0.9943}[name])


def bench(names=tuple(MODELS), **how):
    """Models side by side on this machine's processor."""
    return report([model(name, running(name, **how), quality=scores(name)) for name in names])


def on_texts():
    """The same on a file of real texts, tokenizing included."""
    return bench(batch=8, workload="reviews.txt", padding="longest")


def invalid():
    """One model disturbed, one in doubt, one well."""
    busy = MeasurementWarning(kind="others_busy", values=(1.5,), is_grave=True)
    cold = MeasurementWarning(kind="not_warmed_up", case="8x128", values=(-0.12,))
    return report(
        [
            model("reference", running("reference")),
            model("onnx", running("onnx", validity="semivalid", warnings=(cold,))),
            model("int8", running("int8", validity="invalid", warnings=(busy,))),
        ]
    )


def counted(name):
    """Instructions in an emulator, and a modelled range made of them."""
    count = {"reference": None, "onnx": 171e6, "int8": 69e6}[name]
    if count is None:
        return []
    where = {"batch": 1, "length": 32, "engine": "onnxruntime", "threads": 1}
    counting = Conditions(target="arm64:a76", **where)
    modelling = Conditions(target="profile:pi5", **where)
    bounds = (count / 2.4e9 / 3, count / 2.4e9 / 1.5)
    emulated, modelled = Evidence.EMULATED_INSTRUCTIONS, Evidence.MODELLED_RANGE
    return [
        Measurement.single("instructions", "count", count, "lower", conditions=counting, evidence=emulated),
        Measurement(
            metric="latency_range",
            unit="s",
            samples=(bounds,),
            better="lower",
            conditions=modelling,
            evidence=modelled,
        ),
    ]


def against_the_machine(name):
    """Roofline figures as `meters.roofline` gives them: the machine's with the first model, each case's share."""
    speed, on = MODELS[name][3], {"engine": MODELS[name][1], "precision": "float32"}
    found = []
    if name == "reference":
        for engine, precision, rate in (("torch", "float32", 95e9), ("onnxruntime", "int8", 240e9)):
            where = {"engine": engine, "precision": precision, "threads": 2}
            found.append(exact("gemm_rate", "op/s", rate, "higher", **where))
        for kind, rate in (("read", 11.8e9), ("copy", 9.1e9)):
            found.append(exact("memory_rate", "B/s", rate, "higher", threads=2, phase=kind))
    for (batch, length), share in zip(CASES, (0.12, 0.2, 0.21, 0.27), strict=True):
        operations = share * speed * 95e9
        intensity = batch * length * (2.0 if name == "int8" else 0.5)
        for metric, unit, value in (
            ("share_of_peak", "fraction", share * min(speed, 2)),
            ("operation_rate", "op/s", operations),
            ("byte_rate", "B/s", operations / intensity),
        ):
            m = timed(metric, value, unit=unit, seed=name, num_samples=1, batch=batch, length=length, **on)
            found.append(m.model_copy(update={"better": "higher"}))
    return found


def mixed():
    """Every kind of figure at once: processor, GPU, board, emulator, model of a board, roofline."""
    snapshots = []
    for name in MODELS:
        gpu = [m for m in running(name, "gpu", times=0.1, shapes=CASES[::3]) if m.metric != "memory_shared"]
        tensors = [m for m in gpu if m.metric == "memory"]
        gpu += [m.model_copy(update={"metric": "device_memory_allocated"}) for m in tensors]
        gpu += [m.model_copy(update={"metric": "device_latency"}) for m in gpu if m.metric == "latency"]
        board = running(name, "ssh://pi@board", times=9, shapes=CASES[:1]) if name != "reference" else []
        board = [m.model_copy(update={"evidence": Evidence.MEASURED_DEVICE}) for m in board]
        snapshots.append(
            model(
                name,
                [*running(name), *against_the_machine(name), *gpu, *board, *counted(name)],
                quality=scores(name),
            )
        )
    return report(snapshots, ("a1b2c3", "p1p1p1"))
