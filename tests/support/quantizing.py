"""Tiny encoders as canonical graphs, run in ONNX Runtime: what the tests of quantization's engine start from."""

from collections import Counter
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

from bertshrink.model.batches import pad
from bertshrink.onnx_graph.canonicalize import canonicalise
from bertshrink.onnx_graph.encoder_graph import tensor
from bertshrink.onnx_graph.weights import weights
from bertshrink.techniques.export import Export
from bertshrink.techniques.export.constant_reshapes import fix_reshapes
from bertshrink.techniques.export.onnx import trace
from bertshrink.techniques.quantize.calibration.observe import ActivationObserver
from bertshrink.techniques.quantize.calibration.prepare import ranges
from bertshrink.techniques.quantize.writers.builder import RewriteOptions
from tests.support.tiny import sentences, tiny_encoder


@lru_cache
def graph(family="bert", task="embedding", **more):
    """The canonical float32 graph of a tiny encoder, two layers unless said otherwise."""
    encoder = tiny_encoder(family, task, **({"num_hidden_layers": 2} | more))
    return fix_reshapes(canonicalise(trace(encoder, 20, Export().outputs_of(task))))


def rows(num=6, family="bert"):
    """Tokenized word salad of different lengths."""
    return tiny_encoder(family).tokenize(sentences(num))


def calibration(folder, num=6, family="bert"):
    return ActivationObserver(rows(num, family), 0, folder, True)


def activations(model):
    """Names of the values that dense layers read."""
    return list(dict.fromkeys(found.node.input[0] for weight in weights(model).values() for found in weight.matmuls))


def options(family="bert", task="embedding", **more):
    """Options with small blocks, and a range for every activation of `graph` with the same arguments."""
    return RewriteOptions(ranges=_ranges(family, task, **more), block_size=16)


@lru_cache
def _ranges(family, task, **more):
    model = graph(family, task, **more)
    with TemporaryDirectory() as folder:
        return ranges(model, activations(model), calibration(Path(folder), family=family), "min-max")


def session(model, optimized=None):
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3
    settings.intra_op_num_threads = 1
    if optimized is not None:
        settings.optimized_model_filepath = str(optimized)
    return onnxruntime.InferenceSession(model.SerializeToString(), settings, providers=["CPUExecutionProvider"])


def operators_run(model, folder):
    """Number of operators in the graph that ONNX Runtime runs: after all its fusions."""
    session(model, folder / "optimized.onnx")
    return Counter(node.op_type for node in onnx.load(folder / "optimized.onnx").graph.node)


def answers(model, family="bert", fetch=None):
    """All numbers that a graph gives for one padded batch, at tokens where outputs have a length axis."""
    feeds = pad(rows(family=family), 0)
    found = session(model)
    given = {value.name: feeds[value.name] for value in found.get_inputs()}
    mask = feeds["attention_mask"].astype(bool)
    values = found.run(fetch, given)
    return np.concatenate([np.ravel(v[mask] if v.shape[:2] == mask.shape else v) for v in values])


def difference(model, other, family="bert"):
    """How far two graphs' answers are apart, as a share of the first one's size."""
    first, second = answers(model, family), answers(other, family)
    return float(np.linalg.norm(second - first) / np.linalg.norm(first))


def dense_graph(weight_IO, bias_O, table_VI=None, *, tied=False):
    """Ids -> table -> MatMul -> Add as a graph; `tied`: the table is multiplied with, as its transpose."""
    right = "table.T" if tied else "weight"
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["rows"]),
        *([helper.make_node("Transpose", ["table"], ["table.T"], perm=[1, 0])] if tied else []),
        helper.make_node("MatMul", ["rows", right], ["product"]),
        helper.make_node("Add", ["product", "bias"], ["logits"]),
    ]
    ids = helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["b", "l"])
    output = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["b", "l", len(bias_O)])
    stored = {"table": table_VI, "bias": bias_O} | ({} if tied else {"weight": weight_IO})
    made = helper.make_graph(nodes, "g", [ids], [output], [tensor(value, name) for name, value in stored.items()])
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
