"""Files for engines: ONNX files spoilt in their bytes and in their graphs, .ort files. Judged by plain ONNX Runtime."""

import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.support.foreign_onnx import FORMS, POSITIONS
from tests.support.onnx_files import onnx_folder
from tests.torture.core import Kind, Probe, forked
from tests.torture.models import CODES, TEXTS, alike, home
from tests.torture.mutations import ODD, spoil_bytes


def answers(path: Path) -> dict[str, Any]:
    """What bertshrink's artifact answers; its facts are read as `gate` reads them."""
    from bertshrink.model.artifact import Artifact
    from bertshrink.sources import resolve
    from bertshrink.sources.probe_process import read_header_in_subprocess

    artifact = Artifact.load(resolve.locate_model(str(path)))
    if path.suffix == ".onnx":
        read_header_in_subprocess(path)
    # Text by text: a spoilt graph may mix the rows of a batch.
    found = [artifact.predict([row])[0] for row in artifact.tokenize(TEXTS)]
    return {"numbers": [np.asarray(out["logits"]) for out in found], "labels": list(artifact.labels)}


def plain(path: Path) -> dict[str, Any]:
    """What ONNX Runtime itself answers, and config.json calls it."""
    import json

    import onnxruntime
    import transformers

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(path.parent), local_files_only=True)
    names = {value.name for value in session.get_inputs()}
    numbers = []
    for text in TEXTS:
        feeds = {k: np.asarray([v], dtype=np.int64) for k, v in tokenizer(text).items() if k in names}
        numbers.append(session.run(["logits"], feeds)[0][0])
    labels = json.loads((path.parent / "config.json").read_text())["id2label"]
    return {"numbers": numbers, "labels": list(labels.values())}


def bare(folder: Path, suffix: str) -> Path:
    """A model file with its tokenizer and configuration, as others publish it."""
    made, found = home() / suffix, folder / "m"
    found.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        if (made / name).exists():
            shutil.copyfile(made / name, found / name)
    shutil.copyfile(home() / "classifier" / "config.json", found / "config.json")
    shutil.copyfile(next(made.rglob(f"*.{suffix}")), found / f"model.{suffix}")
    return found / f"model.{suffix}"


def _probe(path: Path, what: str) -> Probe:
    base = next((home() / path.suffix[1:]).rglob(f"*{path.suffix}"))

    def judge(found: dict[str, Any]) -> bool:
        how, theirs = forked(lambda: plain(path), 100)
        return how == "value" and alike(found, theirs)

    if path.read_bytes() == base.read_bytes():
        what += " (unchanged)"
    return Probe(what, lambda: answers(path), judge, CODES, 200)


def onnx_bytes(rng: random.Random, folder: Path) -> Probe:
    """Bytes of an ONNX file."""
    path = bare(folder, "onnx")
    data, what = spoil_bytes(rng, path.read_bytes())
    path.write_bytes(data)
    return _probe(path, f"onnx: {what}")


def ort_bytes(rng: random.Random, folder: Path) -> Probe:
    """Bytes of an .ort file."""
    path = bare(folder, "ort")
    data, what = spoil_bytes(rng, path.read_bytes())
    path.write_bytes(data)
    return _probe(path, f"ort: {what}")


def surgery(rng: random.Random, folder: Path) -> Probe:
    """A valid message, an odd graph."""
    path = bare(folder, "onnx")
    model = onnx.load(path)
    deed = rng.choice(DEEDS)
    what = f"{deed.__name__.strip('_')}: {deed(rng, model) or ''}"
    data = model.SerializeToString()
    path.write_bytes(data)
    if deed is _long_name:
        path = path.rename(path.with_name("n" * rng.choice((240, 250)) + ".onnx"))
    return _probe(path, f"onnx, {what}")


def _long_name(rng: random.Random, model: Any) -> str:
    return "the file's"


def _loop(rng: random.Random, model: Any) -> str:
    turns = rng.choice((10**18, 10**9, 3))
    output = model.graph.node[-1].output
    output[0], name = "before_loop", output[0]
    values = helper.make_tensor_value_info
    body = helper.make_graph(
        [helper.make_node("Identity", [n], [f"{n}_out"]) for n in ("go_in", "state_in")],
        "body",
        [
            values("turn", TensorProto.INT64, []),
            values("go_in", TensorProto.BOOL, []),
            values("state_in", TensorProto.FLOAT, None),
        ],
        [values("go_in_out", TensorProto.BOOL, []), values("state_in_out", TensorProto.FLOAT, None)],
    )
    model.graph.initializer.append(numpy_helper.from_array(np.array(turns), "turns"))
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "go"))
    model.graph.node.append(helper.make_node("Loop", ["turns", "go", "before_loop"], [name], body=body))
    return f"{turns} turns"


def _many_nodes(rng: random.Random, model: Any) -> str:
    count = rng.choice((1000, 200_000))
    model.graph.node.extend([helper.make_node("Identity", ["input_ids"], [f"x{i}"]) for i in range(count)])
    return str(count)


def _many_stored(rng: random.Random, model: Any) -> str:
    count = rng.choice((1000, 100_000))
    model.graph.initializer.extend(
        [numpy_helper.from_array(np.zeros(1, dtype=np.float32), f"x{i}") for i in range(count)]
    )
    return str(count)


def _many_inputs(rng: random.Random, model: Any) -> str:
    count = rng.choice((100, 1_000_000))
    model.graph.node.append(helper.make_node("Concat", ["input_ids"] * count, ["much"], axis=0))
    return str(count)


def _constant_without_output(rng: random.Random, model: Any) -> str:
    model.graph.node.append(helper.make_node("Constant", [], [], value=numpy_helper.from_array(np.zeros(1))))
    return ""


def _strings(rng: random.Random, model: Any) -> str:
    kept = rng.choice(list(model.graph.initializer))
    name = kept.name
    kept.CopyFrom(helper.make_tensor(name, TensorProto.STRING, [1], [b"x"]))
    return name


def _metadata(rng: random.Random, model: Any) -> str:
    entry = rng.choice(list(model.metadata_props))
    entry.value = rng.choice(("", "-1", "NaN", "1e400", "9" * 5000, "[" * 5000, "null", "[]", '{"a": 1}', "\0", "x"))
    return f"{entry.key} is {entry.value[:10]!r}"


def _attribute(rng: random.Random, model: Any) -> str:
    nodes = [node for node in model.graph.node if node.attribute]
    node = rng.choice(nodes)
    attribute = rng.choice(list(node.attribute))
    attribute.i = rng.choice((-1, 0, 2**62, 10**6))
    return f"{node.op_type}.{attribute.name}"


def _dims(rng: random.Random, model: Any) -> str:
    tensor = rng.choice(list(model.graph.initializer))
    del tensor.dims[:]
    tensor.dims.extend(rng.choice(([2**40], [-1], [0], [2**31, 2**31], [1] * 100, [])))
    return tensor.name


def _types(rng: random.Random, model: Any) -> str:
    tensor = rng.choice(list(model.graph.initializer))
    tensor.data_type = rng.choice((0, 99, TensorProto.INT64, TensorProto.FLOAT16, TensorProto.INT4))
    return f"{tensor.name} is {tensor.data_type}"


def _rename(rng: random.Random, model: Any) -> str:
    node = rng.choice(list(model.graph.node))
    side = rng.choice((node.input, node.output))
    if side:
        side[rng.randrange(len(side))] = rng.choice(("", "n" * 100_000, "input_ids", "\x01"))
    return node.op_type


def _operator(rng: random.Random, model: Any) -> str:
    node = rng.choice(list(model.graph.node))
    node.op_type = rng.choice(("Identity", "Loop", "If", "RandomNormal", "", "NoSuchOp", "Relu"))
    return node.op_type


def _drop(rng: random.Random, model: Any) -> str:
    at = rng.randrange(len(model.graph.node))
    name = model.graph.node[at].op_type
    del model.graph.node[at]
    return name


def _external(rng: random.Random, model: Any) -> str:
    tensor = rng.choice(list(model.graph.initializer))
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    name = rng.choice(("../x", "/dev/zero", "n" * 300, "a\0b", "config.json", ""))
    for key, value in (("location", name), ("offset", rng.choice(("0", "-1", "x", "9" * 40)))):
        tensor.external_data.add(key=key, value=value)
    return name[:20]


def _opset(rng: random.Random, model: Any) -> str:
    model.opset_import[0].version = rng.choice((0, -1, 1, 99, 2**40))
    return str(model.opset_import[0].version)


def _io(rng: random.Random, model: Any) -> str:
    value = rng.choice([*model.graph.input, *model.graph.output])
    deed = rng.randrange(3)
    if deed == 0:
        value.name = str(rng.choice(ODD))[:40].encode("utf-8", "replace").decode()
    elif deed == 1:
        value.type.tensor_type.elem_type = rng.choice((0, 8, 99, 6))
    else:
        value.type.tensor_type.shape.dim.add().dim_value = rng.choice((-1, 0, 2**40))
    return value.name


def foreign(rng: random.Random, folder: Path) -> Probe:
    """A file in a form of another exporter, spoilt in its bytes or its graph."""
    name = rng.choice(sorted(name for name, form in FORMS.items() if form.source == "logits"))
    labels = {str(at): f"L{at}" for at in range(3)}
    made = onnx_folder(folder / "m", FORMS[name].make().model(), id2label=labels, max_position_embeddings=POSITIONS)
    path = made / "model.onnx"
    if rng.random() < 0.4:
        data, what = spoil_bytes(rng, path.read_bytes())
    else:
        model = onnx.load(path)
        deed = rng.choice([deed for deed in DEEDS if deed not in (_metadata, _long_name)])
        what = f"{deed.__name__.strip('_')}: {deed(rng, model) or ''}"
        data = model.SerializeToString()
    path.write_bytes(data)

    def judge(found: dict[str, Any]) -> bool:
        how, theirs = forked(lambda: _plain_form(path, name), 100)
        # In float16 ONNX Runtime rounds after each operator or after several, as the graph beside it lets it.
        return how == "value" and alike(found, theirs, 0.02 if FORMS[name].precision == "float16" else 1e-4)

    return Probe(f"{name}, {what}", lambda: answers(path), judge, CODES, 200)


def _plain_form(path: Path, name: str) -> dict[str, Any]:
    """What ONNX Runtime itself answers, text by text, at the size that the form takes."""
    import onnxruntime
    import transformers

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(path.parent), local_files_only=True)
    batch, length = FORMS[name].shape or (None, None)
    kinds = {value.name: np.int32 if "32" in value.type else np.int64 for value in session.get_inputs()}
    numbers = []
    for text in TEXTS:
        tokens = tokenizer(text, padding="max_length" if length else False, max_length=length)
        ids = np.asarray([tokens["input_ids"]] * (batch or 1))
        mask = np.asarray([tokens["attention_mask"]] * (batch or 1))
        known = {
            "input_ids": ids,
            "attention_mask": mask,
            "token_type_ids": 0 * ids,
            "position_ids": np.tile(np.arange(ids.shape[1]), (len(ids), 1)),
        }
        feeds = {name: known[name].astype(kind) for name, kind in kinds.items()}
        numbers.append(np.asarray(session.run(["logits"], feeds)[0][0], dtype=np.float32))
    return {"numbers": numbers, "labels": ["L0", "L1", "L2"]}


DEEDS = (
    *(_loop, _many_nodes, _many_stored, _many_inputs, _constant_without_output, _strings, _metadata, _attribute),
    *(_dims, _types, _rename, _operator, _drop, _external, _opset, _io, _long_name),
)
KINDS = (
    Kind("onnx bytes", onnx_bytes, 750, 40),
    Kind("onnx surgery", surgery, 960, 70),
    Kind("ort", ort_bytes, 220, 20),
    Kind("foreign onnx", foreign, 600, 40),
)
