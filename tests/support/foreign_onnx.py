"""Encoders in the forms in which others write ONNX files: the same small graph, over and over, by hand."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import TensorProto, helper

from bertshrink.onnx_graph.encoder_graph import tensor
from tests.support.onnx_files import ROWS

WIDTH, LABELS, POSITIONS = 32, 3, 40
IDS, MASK = "input_ids", "attention_mask"

node = helper.make_node
_AXES = {"hidden": 3, "encoder_out": 3, "hidden_states": 3, "attentions": 4}


@dataclass
class Parts:
    """A graph in the making: look up, one dense layer, hide padding; `hidden` (B, L, H) and what is made of it."""

    nodes: list
    weights: dict
    inputs: dict = field(default_factory=lambda: {IDS: TensorProto.INT64, MASK: TensorProto.INT64})
    outputs: dict = field(default_factory=dict)
    shape: tuple = ("batch", "length")
    opset: int = 21

    def model(self):
        stored = [tensor(value, name) for name, value in self.weights.items()]
        given = [helper.make_tensor_value_info(name, kind, self.shape) for name, kind in self.inputs.items()]
        made = [
            helper.make_tensor_value_info(name, kind, ["batch", *[None] * (_AXES.get(name.partition(".")[0], 2) - 1)])
            for name, kind in self.outputs.items()
        ]
        graph = helper.make_graph(self.nodes, "g", given, made, stored)
        opsets = (helper.make_opsetid("", self.opset), helper.make_opsetid("com.microsoft", 1))
        return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def numbers(*shape, seed=0, scale=0.5):
    return (np.random.default_rng([seed, *shape]).normal(size=shape) * scale).astype(np.float32)


def in_bytes(weight, axis=None, dtype=np.int8):
    """A weight as whole numbers and their scale; one scale for each place along `axis`."""
    over = None if axis is None else tuple(at for at in range(weight.ndim) if at != axis)
    scale = np.abs(weight).max(axis=over, keepdims=axis is not None).astype(np.float32) / 127
    return np.round(weight / scale).astype(dtype), scale


TABLE, DENSE, BIAS = numbers(ROWS, WIDTH, seed=1), numbers(WIDTH, WIDTH, seed=2, scale=0.3), numbers(WIDTH, seed=3)


def plain(rows=None, dense=None, weights=None):
    """The float graph, its lookup (to `rows`) or its dense layer (`rows` to `dense`) in another form."""
    nodes = [
        *(rows or [node("Gather", ["table", IDS], ["rows"])]),
        *(dense or [node("MatMul", ["rows", "weight"], ["dense"])]),
        node("Add", ["dense", "bias"], ["shifted"]),
        node("Tanh", ["shifted"], ["bent"]),
        node("Cast", [MASK], ["mask"], to=TensorProto.FLOAT),
        node("Unsqueeze", ["mask", "last"], ["mask_BL1"]),
        node("Mul", ["bent", "mask_BL1"], ["hidden"]),
    ]
    own = {"bias": BIAS, "last": np.array([-1])}
    own |= {} if rows else {"table": TABLE}
    own |= {} if dense else {"weight": DENSE}
    return Parts(nodes, own | (weights or {}), outputs={"hidden": TensorProto.FLOAT})


def classified(parts, name="logits", num_labels=LABELS):
    """With a head on the mean of the tokens as the only output."""
    parts.nodes += [
        node("ReduceSum", ["hidden", "middle"], ["sum"], keepdims=0),
        node("MatMul", ["sum", "head"], [name]),
    ]
    parts.weights |= {"middle": np.array([1]), "head": numbers(WIDTH, num_labels, seed=4)}
    parts.outputs = {name: TensorProto.FLOAT}
    return parts


# Outputs and inputs


def hidden_states():
    parts = plain()
    parts.nodes[-1].output[0] = "encoder_out"
    parts.outputs = {"encoder_out": TensorProto.FLOAT}
    return parts


def pooled():
    return classified(plain(), "vector", WIDTH)


def extra_outputs():
    """Hidden states of all layers, an attention, a pooler: as `output_hidden_states` and `output_attentions` give."""
    parts = plain()
    parts.nodes += [
        node("Transpose", ["hidden"], ["turned"], perm=[0, 2, 1]),
        node("MatMul", ["hidden", "turned"], ["scores"]),
        node("Unsqueeze", ["scores", "middle"], ["attentions.0"]),
        node("Identity", ["rows"], ["hidden_states.0"]),
        node("Identity", ["bent"], ["hidden_states.1"]),
        node("Identity", ["hidden"], ["hidden_states.2"]),
        node("Gather", ["hidden", "first"], ["token"], axis=1),
        node("Tanh", ["token"], ["pooler_output"]),
    ]
    parts.weights |= {"middle": np.array([1]), "first": np.array(0)}
    names = ("pooler_output", "attentions.0", *(f"hidden_states.{at}" for at in range(3)))
    parts.outputs = dict.fromkeys(names, TensorProto.FLOAT)
    return parts


def extra_beside_logits():
    parts = classified(plain(), "scores")
    parts.outputs = dict.fromkeys(("hidden", "scores"), TensorProto.FLOAT)
    return parts


def int32_ids():
    parts = classified(plain())
    parts.inputs = dict.fromkeys((IDS, MASK), TensorProto.INT32)
    return parts


def another_order():
    parts = classified(plain())
    parts.inputs = dict(reversed(parts.inputs.items()))
    return parts


def of_shape(*shape):
    def make():
        parts = classified(plain())
        parts.shape = shape
        return parts

    return make


def baked(batch=None, length=None):
    """Declared for any shape, and made for one: a Reshape holds the number."""

    def make():
        parts = classified(plain())
        sizes = "sizes"
        parts.nodes.insert(1, node("Reshape", ["rows", sizes], ["flat"]))
        parts.nodes[2].input[0] = "flat"
        parts.weights[sizes] = np.array([-1 if length else batch, length or -1, WIDTH])
        return parts

    return make


def positions_and_types():
    """Tables of positions and types, both asked for as inputs."""
    rows = [
        node("Gather", ["table", IDS], ["words"]),
        node("Gather", ["places", "position_ids"], ["placed"]),
        node("Gather", ["kinds", "token_type_ids"], ["typed"]),
        node("Add", ["words", "placed"], ["both"]),
        node("Add", ["both", "typed"], ["rows"]),
    ]
    tables = {"table": TABLE, "places": numbers(POSITIONS, WIDTH, seed=5), "kinds": numbers(2, WIDTH, seed=6)}
    parts = classified(plain(rows, weights=tables))
    parts.inputs = dict.fromkeys(("position_ids", MASK, "token_type_ids", IDS), TensorProto.INT64)
    return parts


# Number formats


def float16():
    """Weights, sums and output in float16."""
    parts = classified(plain())
    parts.weights = {
        name: value.astype(np.float16) if value.dtype == np.float32 else value for name, value in parts.weights.items()
    }
    next(one for one in parts.nodes if one.op_type == "Cast").attribute[0].i = TensorProto.FLOAT16
    parts.outputs = {"logits": TensorProto.FLOAT16}
    return parts


def int8_by_hand():
    """Weights stored as int8, brought back by Cast and Mul where they are used."""
    table, table_scale = in_bytes(TABLE, axis=0)
    weight, scale = in_bytes(DENSE, axis=1)
    rows = [
        node("Gather", ["table", IDS], ["bytes"]),
        node("Cast", ["bytes"], ["as_float"], to=TensorProto.FLOAT),
        node("Gather", ["table_scale", IDS], ["row_scale"]),
        node("Mul", ["as_float", "row_scale"], ["rows"]),
    ]
    dense = [
        node("Cast", ["weight"], ["weight_float"], to=TensorProto.FLOAT),
        node("Mul", ["weight_float", "scale"], ["weight_scaled"]),
        node("MatMul", ["rows", "weight_scaled"], ["dense"]),
    ]
    stored = {"table": table, "table_scale": table_scale, "weight": weight, "scale": scale}
    return classified(plain(rows, dense, stored))


def int8_before_the_lookup():
    """The whole table brought back before rows are looked up: no stored table is read by ids."""
    table, scale = in_bytes(TABLE)
    rows = [
        node("Cast", ["table"], ["as_float"], to=TensorProto.FLOAT),
        node("Mul", ["as_float", "table_scale"], ["whole"]),
        node("Gather", ["whole", IDS], ["rows"]),
    ]
    return classified(plain(rows, weights={"table": table, "table_scale": scale}))


def qdq():
    """QuantizeLinear and DequantizeLinear around what stays float."""
    table, table_scale = in_bytes(TABLE)
    weight, scale = in_bytes(DENSE, axis=1)
    zero = {"zero": np.int8(0), "zeros": np.zeros(WIDTH, np.int8)}
    rows = [
        node("DequantizeLinear", ["table", "table_scale", "zero"], ["whole"]),
        node("Gather", ["whole", IDS], ["rows"]),
    ]
    dense = [
        node("QuantizeLinear", ["rows", "step", "zero"], ["rows_q"]),
        node("DequantizeLinear", ["rows_q", "step", "zero"], ["rows_dq"]),
        node("DequantizeLinear", ["weight", "scale", "zeros"], ["weight_dq"], axis=1),
        node("MatMul", ["rows_dq", "weight_dq"], ["dense"]),
    ]
    stored = {"table": table, "table_scale": table_scale, "weight": weight, "scale": scale.ravel()}
    return classified(plain(rows, dense, stored | zero | {"step": np.float32(0.02)}))


def qoperator():
    """QLinearMatMul: integers in, integers out."""
    weight, scale = in_bytes(DENSE)
    dense = [
        node("QuantizeLinear", ["rows", "step", "half"], ["rows_q"]),
        node("QLinearMatMul", ["rows_q", "step", "half", "weight", "scale", "zero", "step2", "half"], ["dense_q"]),
        node("DequantizeLinear", ["dense_q", "step2", "half"], ["dense"]),
    ]
    steps = {"step": np.float32(0.02), "step2": np.float32(0.05), "half": np.uint8(128), "zero": np.int8(0)}
    return classified(plain(dense=dense, weights={"weight": weight, "scale": scale} | steps))


def dynamic():
    """What ONNX Runtime's `quantize_dynamic` writes: MatMulInteger."""
    weight, scale = in_bytes(DENSE)
    dense = [
        node("DynamicQuantizeLinear", ["rows"], ["rows_q", "step", "zero_point"]),
        node("MatMulInteger", ["rows_q", "weight", "zero_point", "zero"], ["product"]),
        node("Cast", ["product"], ["product_float"], to=TensorProto.FLOAT),
        node("Mul", ["step", "scale"], ["both"]),
        node("Mul", ["product_float", "both"], ["dense"]),
    ]
    return classified(plain(dense=dense, weights={"weight": weight, "scale": scale, "zero": np.int8(0)}))


def blocks():
    """MatMulNBits and GatherBlockQuantized: 4 bits, a scale for each block of 16 numbers."""
    rng = np.random.default_rng(7)
    num_blocks = WIDTH // 16
    dense = [
        node(
            "MatMulNBits",
            ["rows", "weight", "scales"],
            ["dense"],
            domain="com.microsoft",
            K=WIDTH,
            N=WIDTH,
            bits=4,
            block_size=16,
        )
    ]
    rows = [
        node(
            "GatherBlockQuantized",
            ["table", IDS, "table_scales", "table_zeros"],
            ["rows"],
            domain="com.microsoft",
            gather_axis=0,
            quantize_axis=1,
            block_size=16,
            bits=4,
        )
    ]
    stored = {
        "weight": rng.integers(0, 256, (WIDTH, num_blocks, 8), np.uint8),
        "scales": np.full(WIDTH * num_blocks, 0.05, np.float32),
        "table": rng.integers(0, 256, (ROWS, WIDTH // 2), np.uint8),
        "table_scales": np.full((ROWS, num_blocks), 0.1, np.float32),
        "table_zeros": np.full((ROWS, num_blocks // 2), 0x88, np.uint8),
    }
    return classified(plain(rows, dense, stored))


def qattention():
    """QAttention: all three projections and the attention in one operator of integers."""
    weight, scale = in_bytes(numbers(WIDTH, 3 * WIDTH, seed=8, scale=0.3))
    dense = [
        node("QuantizeLinear", ["rows", "step", "half"], ["rows_q"]),
        node("Cast", [MASK], ["mask_int"], to=TensorProto.INT32),
        node(
            "QAttention",
            ["rows_q", "weight", "qkv_bias", "step", "scale", "mask_int", "half", "zero"],
            ["dense"],
            domain="com.microsoft",
            num_heads=2,
        ),
    ]
    stored = {"weight": weight, "scale": scale, "qkv_bias": numbers(3 * WIDTH, seed=9)}
    steps = {"step": np.float32(0.02), "half": np.uint8(128), "zero": np.int8(0)}
    return classified(plain(dense=dense, weights=stored | steps))


def attention():
    """Attention: all three projections and the attention in one operator of floats."""
    dense = [
        node("Cast", [MASK], ["mask_int"], to=TensorProto.INT32),
        node(
            "Attention",
            ["rows", "weight", "qkv_bias", "mask_int"],
            ["dense"],
            domain="com.microsoft",
            num_heads=2,
            mask_filter_value=-1e9,
        ),
    ]
    stored = {"weight": numbers(WIDTH, 3 * WIDTH, seed=8, scale=0.3), "qkv_bias": numbers(3 * WIDTH, seed=9)}
    return classified(plain(dense=dense, weights=stored))


def embedding():
    """EmbedLayerNormalization, whose number of tokens is the mask of an Attention behind it."""
    rows = [
        node("Cast", [IDS], ["ids_int"], to=TensorProto.INT32),
        node("Cast", ["token_type_ids"], ["types_int"], to=TensorProto.INT32),
        node("Cast", [MASK], ["mask_int"], to=TensorProto.INT32),
        node(
            "EmbedLayerNormalization",
            ["ids_int", "types_int", "words", "places", "kinds", "gain", "shift", "mask_int"],
            ["rows", "number"],
            domain="com.microsoft",
            epsilon=1e-12,
        ),
    ]
    dense = [
        node("Attention", ["rows", "weight", "qkv_bias", "number"], ["dense"], domain="com.microsoft", num_heads=2)
    ]
    stored = {
        "words": TABLE,
        "places": numbers(POSITIONS, WIDTH, seed=5),
        "kinds": numbers(2, WIDTH, seed=6),
        "gain": 1 + numbers(WIDTH, seed=10, scale=0.1),
        "shift": numbers(WIDTH, seed=11, scale=0.1),
        "weight": numbers(WIDTH, 3 * WIDTH, seed=8, scale=0.3),
        "qkv_bias": numbers(3 * WIDTH, seed=9),
    }
    parts = classified(plain(rows, dense, stored))
    parts.inputs = dict.fromkeys((IDS, MASK, "token_type_ids"), TensorProto.INT64)
    return parts


def dense_behind(kind, **settings):
    """A dense layer and its activation behind the pooling, as one operator."""

    def make():
        parts = classified(plain(), "vector", WIDTH)
        parts.nodes[-1] = node(
            "FusedGemm",
            ["sum", "head", "head_bias"],
            ["vector"],
            domain="com.microsoft",
            activation=kind,
            transB=1,
            **settings,
        )
        parts.weights["head_bias"] = numbers(WIDTH, seed=12)
        return parts

    return make


def norms_of_an_older_opset():
    """LayerNormalization at an opset that has none, as ONNX Runtime writes what it has optimized."""
    rows = [
        node("Gather", ["table", IDS], ["words"]),
        node("LayerNormalization", ["words", "gain", "shift"], ["normed"], axis=-1, epsilon=1e-3),
        node("LayerNormalization", ["normed", "gain"], ["rows"]),
    ]
    own = {"table": TABLE, "gain": 1 + numbers(WIDTH, seed=10, scale=0.1), "shift": numbers(WIDTH, seed=11, scale=0.1)}
    parts = classified(plain(rows, weights=own))
    parts.opset = 14
    return parts


def qembedding():
    """QEmbedLayerNormalization: words, positions and types of bytes, summed and normalised."""
    stored, names = {}, []
    for name, value in {
        "words": TABLE,
        "places": numbers(POSITIONS, WIDTH, seed=5),
        "kinds": numbers(2, WIDTH, seed=6),
        "gain": 1 + numbers(WIDTH, seed=10, scale=0.1),
        "shift": numbers(WIDTH, seed=11, scale=0.1),
    }.items():
        stored[name], stored[f"{name}_scale"] = in_bytes(value)
        stored[f"{name}_zero"] = np.int8(0)
        names.append(name)
    rows = [
        node("Cast", [IDS], ["ids_int"], to=TensorProto.INT32),
        node("Cast", ["token_type_ids"], ["types_int"], to=TensorProto.INT32),
        node("Cast", [MASK], ["mask_int"], to=TensorProto.INT32),
        node(
            "QEmbedLayerNormalization",
            [
                *("ids_int", "types_int", *names, "mask_int"),
                *(f"{name}_scale" for name in names),
                *(f"{name}_zero" for name in names),
            ],
            ["rows", "mask_index"],
            domain="com.microsoft",
            epsilon=1e-12,
        ),
    ]
    parts = classified(plain(rows, weights=stored))
    parts.inputs = dict.fromkeys((IDS, MASK, "token_type_ids"), TensorProto.INT64)
    return parts


@dataclass(frozen=True)
class Form:
    """One way to write a file.

    Attributes:
        make: its parts.
        source: the file's own output that the artifact's is computed from.
        is_vectors: whether that is token vectors, of which the artifact gives the mean.
        shape: the (batch, length) that the file takes.
        precision: in the card.
        refusal: what `quantize` says; None: it quantizes it.
        head: the class in config.json.
    """

    make: Callable[[], Parts]
    source: str = "logits"
    is_vectors: bool = False
    shape: tuple | None = None
    precision: str = "float32"
    refusal: str | None = None
    head: str = "ForSequenceClassification"


_QUANTIZED = "already quantized"
FORMS = {
    "hidden states": Form(hidden_states, "encoder_out", True, head="Model"),
    "pooled": Form(pooled, "vector", head="Model"),
    "extra outputs": Form(extra_outputs, "hidden_states.2", True, head="Model"),
    "extra beside logits": Form(extra_beside_logits, "scores"),
    "int32 ids": Form(int32_ids),
    "another order": Form(another_order),
    "fixed batch": Form(of_shape(2, "length"), shape=(2, None)),
    "fixed length": Form(of_shape("batch", 16), shape=(None, 16)),
    "fixed batch and length": Form(of_shape(2, 16), shape=(2, 16)),
    "baked batch": Form(baked(batch=1), shape=(1, None)),
    "baked length": Form(baked(length=32), shape=(None, 32)),
    "positions and types": Form(positions_and_types),
    "float16": Form(float16, precision="float16"),
    "int8 by hand": Form(int8_by_hand, precision="int8", refusal=_QUANTIZED),
    "int8 before the lookup": Form(int8_before_the_lookup, precision="int8", refusal=_QUANTIZED),
    "QDQ": Form(qdq, precision="int8", refusal=_QUANTIZED),
    "QOperator": Form(qoperator, precision="int8", refusal=_QUANTIZED),
    "dynamic": Form(dynamic, precision="int8", refusal=_QUANTIZED),
    "blocks of 4 bits": Form(blocks, precision="int4", refusal=_QUANTIZED),
    "Attention": Form(attention),
    "EmbedLayerNormalization": Form(embedding),
    "dense layer behind the pooling": Form(dense_behind("Tanh"), "vector", head="Model"),
    "dense layer with a setting": Form(dense_behind("LeakyRelu", activation_alpha=0.2), "vector", head="Model"),
    "norms of an older opset": Form(norms_of_an_older_opset),
    "QAttention": Form(qattention, precision="int8", refusal=_QUANTIZED),
    "QEmbedLayerNormalization": Form(qembedding, precision="int8", refusal=_QUANTIZED),
}


def open_shape(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph for any shape, as a truth to compare with."""
    found = onnx.ModelProto()
    found.CopyFrom(model)
    for value in found.graph.input:
        for axis, name in zip(value.type.tensor_type.shape.dim, ("batch", "length"), strict=True):
            axis.dim_param = name
    return found
