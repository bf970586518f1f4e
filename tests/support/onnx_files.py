"""A tiny encoder's ONNX file by hand, as exporters write one, and the folder around it."""

import hashlib
import os

import numpy as np
import onnx
from onnx import TensorProto, helper

from bertshrink.onnx_graph.encoder_graph import tensor
from tests.support.model_folders import model_folder
from tests.support.tiny import tiny_tokenizer

ROWS, WIDTH = len(tiny_tokenizer()), 8
OPSETS = (helper.make_opsetid("", 17),)


def encoder_parts(num_labels=2, seed=0):
    """Nodes and weights of: look up, hide padding, one dense layer, mean of the tokens, classify."""
    rng = np.random.default_rng(seed)
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["rows"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last"], ["mask_BL1"]),
        helper.make_node("MatMul", ["rows", "weight"], ["dense"], "dense"),
        helper.make_node("Tanh", ["dense"], ["bent"]),
        helper.make_node("Mul", ["bent", "mask_BL1"], ["hidden"]),
        helper.make_node("ReduceSum", ["hidden", "middle"], ["sum"], keepdims=0),
        helper.make_node("Gemm", ["sum", "head", "bias"], ["logits"], "head", transB=1),
    ]
    weights = {
        "table": rng.normal(size=(ROWS, WIDTH)).astype(np.float32),
        "weight": rng.normal(size=(WIDTH, WIDTH)).astype(np.float32),
        "head": rng.normal(size=(num_labels, WIDTH)).astype(np.float32),
        "bias": rng.normal(size=num_labels).astype(np.float32),
        "last": np.array([-1]),
        "middle": np.array([1]),
    }
    return nodes, weights


def encoder_model(
    nodes=None, weights=None, outputs=("logits",), inputs=("input_ids", "attention_mask"), functions=(), **more
):
    """A model of these parts; those of `encoder_parts` by default."""
    own_nodes, own_weights = encoder_parts()
    shape = more.pop("shape", ["batch", "length"])
    kind = more.pop("kind", TensorProto.INT64)
    opsets = more.pop("opsets", OPSETS)
    stored = [tensor(value, name) for name, value in (weights or own_weights).items()]
    given = [helper.make_tensor_value_info(name, kind, shape) for name in inputs]
    made = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", None]) for name in outputs]
    if "hidden" in outputs:
        made[outputs.index("hidden")] = helper.make_tensor_value_info(
            "hidden", TensorProto.FLOAT, ["batch", "length", WIDTH]
        )
    graph = helper.make_graph(nodes or own_nodes, "g", given, made, stored)
    return helper.make_model(graph, opset_imports=opsets, functions=functions, ir_version=10)


def onnx_folder(folder, model=None, config=True, name="model.onnx", **more):
    """A folder in optimum's form: the file, config.json and a tokenizer; `more` are keys of config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    data = model if isinstance(model, bytes) else (model or encoder_model()).SerializeToString()
    (folder / name).write_bytes(data)
    tiny_tokenizer().save_pretrained(folder)
    if config:
        model_folder(folder, vocab_size=ROWS, **more)
    return folder


def outside(model, location="weights.bin", **entries):
    """The model with `weight` in a file beside it, and that file's bytes."""
    found = onnx.ModelProto()
    found.CopyFrom(model)
    stored = next(value for value in found.graph.initializer if value.name == "weight")
    data = stored.raw_data
    stored.ClearField("raw_data")
    stored.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, "offset": "0", "length": str(len(data)), **entries}.items():
        stored.external_data.add(key=key, value=value)
    return found, data


def hub_cache(place, files, name="models--org--name"):
    """A hub cache with one snapshot, as huggingface_hub lays it out."""
    repository = place / name
    snapshot = repository / "snapshots" / "abc123"
    (repository / "blobs").mkdir(parents=True)
    for at, data in files.items():
        is_large = at.endswith((".onnx", "_data"))
        small = hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()
        digest = hashlib.sha256(data).hexdigest() if is_large else small
        (repository / "blobs" / digest).write_bytes(data)
        link = snapshot / at
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(repository / "blobs" / digest, link.parent))
    return snapshot


def files_of(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
