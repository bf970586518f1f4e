"""The rewriting engine: every type for every family, any mixture, each weight once, nothing left behind unnoticed."""

from collections import Counter

import numpy as np
import pytest
from onnx import TensorProto

from bertshrink.errors import CheckFailed, UserError
from bertshrink.model.families import FAMILIES
from bertshrink.onnx_graph.encoder_graph import bytes_by_type, initializers, tensor
from bertshrink.onnx_graph.weights import weights, without_unread
from bertshrink.techniques.quantize import Quantize
from bertshrink.techniques.quantize import rewrite as rewrite_module
from bertshrink.techniques.quantize.coverage import account
from bertshrink.techniques.quantize.rewrite import DENSE, LOOKUP, rewrite
from bertshrink.techniques.quantize.schemes import TYPES, precision, uniform
from bertshrink.techniques.quantize.size_estimate import SCHEMES
from tests.support.families import THINNED
from tests.support.quantizing import activations, answers, difference, graph, operators_run, options

pytestmark = pytest.mark.usefixtures("one_thread")

LARGEST = {"float16": 0.01, "bfloat16": 0.06, "dynamic-int8": 0.3, "static-int8": 0.3, "block-int8": 0.1}
"""Difference that tiny random models may show; four bits in blocks of 16 may be far off."""


@pytest.mark.slow
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(("family", "task"), [*((family, "embedding") for family in THINNED), ("bert", "mlm")])
def test_every_scheme_of_every_family(scheme, family, task):
    source = graph(family, task)
    types = uniform(source, scheme, Quantize())
    found = rewrite(source, types, options(family, task))
    num_dense = sum(len(weight.matmuls) for weight in weights(source).values())
    num_products = 8 if FAMILIES[family].attention == "disentangled" else 4
    assert found.accounting.matmuls == {SCHEMES[scheme]: num_dense, "activations": num_products}
    assert sum(found.accounting.size_bytes.values()) == sum(bytes_by_type(found.model).values())
    assert set(activations(source)) <= {name for node in found.model.graph.node for name in node.input}
    assert difference(source, found.model, family) < LARGEST.get(scheme, 1.0)
    assert account(source).matmuls == {"float32": num_dense, "activations": num_products}


def test_all_in_float32_is_the_same_graph_to_the_byte():
    source = graph("bert", "mlm")
    same = rewrite(source, dict.fromkeys(weights(source), "float32")).model
    assert same.SerializeToString(deterministic=True) == source.SerializeToString(deterministic=True)
    assert rewrite(source, {}).model.SerializeToString(deterministic=True) == same.SerializeToString(deterministic=True)


def test_the_source_is_left_alone():
    source = graph("electra", "mlm")
    before = source.SerializeToString(deterministic=True)
    for scheme in SCHEMES:
        rewrite(source, uniform(source, scheme, Quantize()), options("electra", "mlm"))
    assert source.SerializeToString(deterministic=True) == before


@pytest.mark.slow
@pytest.mark.parametrize("family", ["bert", "albert"])
def test_any_mixture(family):
    source = graph(family, "mlm", num_hidden_layers=4)
    names = list(weights(source))
    types = {name: TYPES[at % len(TYPES)] for at, name in enumerate(names)}
    found = rewrite(source, types, options(family, "mlm", num_hidden_layers=4))
    expected = Counter()
    for name, weight in weights(source).items():
        expected[types[name]] += len(weight.matmuls)
    dense = {kind: number for kind, number in found.accounting.matmuls.items() if kind != "activations"}
    assert dense == +expected
    assert np.isfinite(answers(found.model, family)).all()


def test_one_weight_alone():
    source = graph()
    name = "encoder.layer.1.output.dense.weight.T"
    for kind in TYPES[1:]:
        found = rewrite(source, {name: kind}, options())
        assert found.accounting.matmuls[kind] == 1
        assert found.accounting.matmuls["float32"] == 11
        assert 0 < difference(source, found.model) < 0.2
        changed = {n for n, stored in initializers(found.model).items() if n not in initializers(source)}
        assert all(n.startswith((name, "encoder/layer.1/intermediate")) for n in changed), changed


RUN = {
    "int8-dynamic": ("DynamicQuantizeMatMul", "MatMulIntegerToFloat"),  # the latter where layers share an activation
    "int8-static": ("MatMulIntegerToFloat",),
    "int8-block": ("MatMulNBits",),
    "int4-block": ("MatMulNBits",),
}
"""What ONNX Runtime makes of a dense layer of each type."""


@pytest.mark.slow
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("num_groups", [1, 2])
def test_shared_weights_are_stored_once_and_all_their_layers_are_written(scheme, num_groups, tmp_path):
    kind, more = SCHEMES[scheme], {"num_hidden_layers": 4, "num_hidden_groups": num_groups}
    source = graph("albert", **more)
    found = rewrite(source, uniform(source, scheme, Quantize()), options("albert", **more))
    assert found.accounting.matmuls[kind] == 6 * 4 + 1
    stored = found.accounting.stored
    matrices, tables = 6 * num_groups + 1, 2  # the projection of the embeddings; the word and position tables
    assert stored == {"float32": 1} | (
        {kind: matrices, "int8-rows": tables} if kind in ("int8-dynamic", "int8-static") else {kind: matrices + tables}
    )
    if kind in RUN:
        kinds = operators_run(found.model, tmp_path)
        assert sum(kinds[name] for name in RUN[kind]) == 6 * 4 + 1


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("family", ["bert", "electra"])
def test_a_tied_head_and_its_table_are_one(scheme, family):
    source = graph(family, "mlm")
    (name,) = [name for name, weight in weights(source).items() if weight.is_table and weight.matmuls]
    size = weights(source)[name].size_bytes // 4
    found = rewrite(source, uniform(source, scheme, Quantize()), options(family, "mlm"))
    width = {"block-int4": 0.5, "float16": 2, "bfloat16": 2}.get(scheme, 1)
    same_size = [s for n, s in initializers(found.model).items() if n.startswith(name) and np.prod(s.dims) > size / 4]
    (table,) = same_size
    assert len(table.raw_data) == width * size
    assert difference(source, found.model, family) < LARGEST.get(scheme, 1.0)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_what_the_runtime_runs(scheme, tmp_path):
    kind = SCHEMES[scheme]
    source = graph("bert", "token-classification")
    found = rewrite(source, uniform(source, scheme, Quantize()), options(task="token-classification"))
    before, after = operators_run(source, tmp_path), operators_run(found.model, tmp_path)
    if kind in RUN:
        assert sum(after[name] for name in RUN[kind]) == 2 * 6 + 1
        assert after["DequantizeLinear"] == 0
    else:
        assert after == before, "ONNX Runtime brings half weights back when it loads them"


def test_types_of_tables():
    source = graph("bert", "embedding")
    word = "embeddings.word_embeddings.weight"
    of = {
        (scheme, setting): uniform(source, scheme, Quantize(embeddings=setting))[word]
        for scheme in ("dynamic-int8", "static-int8", "block-int4", "float16")
        for setting in ("auto", "int8", "int4", "float32")
    }
    assert [of["dynamic-int8", s] for s in ("auto", "int8", "int4")] == ["int8-dynamic", "int8-dynamic", "int4-block"]
    assert [of["static-int8", s] for s in ("auto", "int8")] == ["int8-static", "int8-static"]
    assert [of["block-int4", s] for s in ("auto", "int8")] == ["int4-block", "int8-block"]
    assert [of["float16", s] for s in ("auto", "int8")] == ["float16", "int8-dynamic"]
    assert {kind for (_, setting), kind in of.items() if setting == "float32"} == {"float32"}


def test_a_classifier_keeps_eight_bits_among_four():
    source = graph("bert", "classification")
    types = uniform(source, "block-int4", Quantize())
    assert [name for name, kind in types.items() if kind == "int8-block"] == ["classifier.weight.T"]
    assert precision(source, types) == "int4+int8"


def test_the_name_of_a_mixture():
    source = graph()
    types = uniform(source, "dynamic-int8", Quantize())
    assert precision(source, types) == "int8"
    assert precision(source, {}) == "float32"
    name = "encoder.layer.0.output.dense.weight.T"
    assert precision(source, types | {name: "float32"}) == "int8+float32"
    assert precision(source, types | {name: "int8-block"}) == "int8"


def test_what_cannot_be_assigned():
    source = graph()
    with pytest.raises(UserError, match="no weight `nowhere`"):
        rewrite(source, {"nowhere": "float16"})
    with pytest.raises(UserError, match="no type `int3`"):
        rewrite(source, {"embeddings.word_embeddings.weight": "int3"})
    with pytest.raises(UserError, match="needs a calibrated range"):
        rewrite(source, uniform(source, "static-int8", Quantize()))


@pytest.mark.parametrize("table", [DENSE, LOOKUP])
def test_what_is_left_behind_is_an_error(table, monkeypatch):
    source = graph()
    kind = "int8-block"
    monkeypatch.setitem(table, kind, lambda draft, found: draft.nodes.append(getattr(found, "node", found)))
    with pytest.raises(CheckFailed, match="should be"):
        rewrite(source, uniform(source, "block-int8", Quantize()))


def test_a_large_matrix_left_in_float32_is_an_error(monkeypatch):
    source = graph()
    extra = tensor(np.ones((200, 100), dtype=np.float32), "stray")
    honest = rewrite_module.GraphBuilder.result

    def result(self):
        found = honest(self)
        found.graph.initializer.append(extra)
        return found

    monkeypatch.setattr(rewrite_module.GraphBuilder, "result", result)
    with pytest.raises(CheckFailed, match="`stray` was left in float32"):
        rewrite(source, uniform(source, "block-int8", Quantize()))


def test_nodes_and_tensors_that_nothing_reads_are_dropped():
    source = graph()
    more = type(source)()
    more.CopyFrom(source)
    more.graph.initializer.append(tensor(np.ones(3, dtype=np.float32), "stray"))
    node = more.graph.node.add(op_type="Neg", input=["stray"], output=["nothing"])
    assert node.op_type == "Neg"
    assert without_unread(more).SerializeToString(deterministic=True) == source.SerializeToString(deterministic=True)


def test_small_tables_are_no_weights():
    assert [name for name in weights(graph()) if "token_type" in name] == []
    assert account(graph()).gathers == {"float32": 3}
    stored = initializers(rewrite(graph(), uniform(graph(), "block-int8", Quantize())).model)
    assert stored["embeddings.token_type_embeddings.weight"].data_type == TensorProto.FLOAT
