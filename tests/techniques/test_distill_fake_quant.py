"""A student that learns as it will compute once it is quantized: the numbers, the gradients, and what is left of it."""

import copy
from contextlib import nullcontext

import numpy as np
import onnx
import pytest
import torch
import transformers
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator
from pydantic import ValidationError
from torch import nn

from bertshrink.engines import engine
from bertshrink.errors import CheckFailed
from bertshrink.model.checkpoint_info import read_facts
from bertshrink.techniques.base import Workbench
from bertshrink.techniques.distill import Distill
from bertshrink.techniques.distill.quant_aware import fake_quant, rounding
from bertshrink.techniques.distill.quant_aware.fake_quant import FakeQuant, RoundedEmbedding, RoundedLinear
from bertshrink.techniques.distill.quant_aware.rounding import by_block, int4_rows, int8_rows, rounded, uint8_tensor
from bertshrink.techniques.export import Export
from bertshrink.techniques.quantize import Quantize
from bertshrink.techniques.quantize.numerics.blockwise import dequantize, quantize_blocks
from bertshrink.techniques.quantize.numerics.int8 import quantize_matrix
from bertshrink.techniques.quantize.size_estimate import block_size_for
from tests.support.subprocess_kill import killed_after
from tests.support.tiny import bench_of, outputs, sentences, tiny_encoder, tiny_texts

pytestmark = pytest.mark.usefixtures("one_thread")


def workbench(teacher, folder, num_train=48):
    return Workbench(tiny_texts(teacher.task, num_train, 16), teacher, folder, task=teacher.task)


def weights_of(encoder):
    return {name: tensor.clone() for name, tensor in encoder.model.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# the numbers


def test_int8_weights_are_those_that_quantize_writes():
    torch.manual_seed(0)
    for weight in (torch.randn(7, 5), 1e-30 * torch.randn(3, 4), torch.zeros(2, 3), torch.tensor([[0.5, -1.5, 127.0]])):
        found = int8_rows(weight).numpy()
        assert np.array_equal(found, quantize_matrix(weight.numpy(), 1).dequantize()), "a table"
        assert np.array_equal(found.T, quantize_matrix(weight.numpy().T, 0).dequantize()), "a dense layer"


@pytest.mark.parametrize(("width", "block"), [(64, 32), (48, 16), (40, 32), (7, 16)])
def test_oracle_of_int4(width, block):
    weight = np.random.default_rng(width).normal(0.1, 1, (5, width)).astype(np.float32)
    weight[0] = 0
    weight[1] = np.abs(weight[1])
    weight[2, :2] = 9, -9  # as far on either side
    found = by_block(torch.from_numpy(weight), 32, int4_rows).numpy()
    for row, expected in zip(weight, found, strict=True):
        for start in range(0, width, block):
            values = row[start : start + block]
            largest = max(values, key=lambda value: (abs(value), value < 0))
            step = -largest / np.float32(8)
            q = [min(7, max(-8, round(float(value / step)))) if step else 0 for value in values]
            assert expected[start : start + block] == pytest.approx([one * step for one in q], abs=1e-6)


@pytest.mark.parametrize("width", [64, 48, 40, 7])
@pytest.mark.parametrize(("bits", "rule"), [(4, int4_rows), (8, int8_rows)])
def test_blocks_are_those_that_quantize_writes_where_it_looks_for_no_better_ones(bits, rule, width):
    torch.manual_seed(width)
    weight = torch.randn(9, width)
    weight[0], weight[1] = 0, weight[1].abs()
    found = by_block(weight, 32, rule)
    blocks = quantize_blocks(weight.numpy(), bits, block_size_for(width, 32), symmetric=True, search=False)
    assert np.array_equal(found.numpy(), dequantize(blocks))
    again = dequantize(quantize_blocks(found.numpy(), bits, block_size_for(width, 32), symmetric=True))
    np.testing.assert_allclose(again, found.numpy(), rtol=1e-5, err_msg="looking, it finds the grid again")


def test_few_outputs_take_eight_bits_where_others_take_four():
    torch.manual_seed(0)
    narrow, wide = torch.randn(2, 64), torch.randn(32, 64)
    rounding = fake_quant.Rounding("int4", 32, keeps=False)
    assert torch.equal(rounding.weight(narrow), by_block(narrow, 32, int8_rows))
    assert torch.equal(rounding.weight(wide), by_block(wide, 32, int4_rows))
    assert torch.equal(rounding.rows(narrow), by_block(narrow, 32, int4_rows)), "rows of a table"


def test_activations_are_those_of_dynamic_quantize_linear():
    node = helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"])
    kinds = {"q": TensorProto.UINT8, "s": TensorProto.FLOAT, "z": TensorProto.UINT8}
    shapes = {"q": ["a", "b"], "s": [], "z": []}
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["a", "b"])],
        [helper.make_tensor_value_info(name, kind, shapes[name]) for name, kind in kinds.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    session = ReferenceEvaluator(model)
    torch.manual_seed(0)
    given = torch.randn(20, 30)
    for values in (given, given + 9, -given.abs(), 3 * given.abs(), torch.cat([given, torch.full((1, 30), 40.0)])):
        q, s, z = session.run(None, {"x": values.numpy()})
        expected = (q.astype(np.float32) - z) * s
        assert np.abs(uint8_tensor(values).numpy() - expected).max() <= 1e-6 * float(values.abs().max())
    assert not uint8_tensor(torch.zeros(2, 3)).any()


def test_gradients_pass_straight_through():
    torch.manual_seed(0)
    layer = RoundedLinear(6, 4)
    layer.rounding = fake_quant.Rounding("int8", 32, keeps=True)
    x, upstream = torch.randn(3, 6, requires_grad=True), torch.randn(3, 4)
    layer(x).backward(upstream)
    with torch.no_grad():
        x8, weight8 = uint8_tensor(x), int8_rows(layer.weight)
    torch.testing.assert_close(layer(x), x8 @ weight8.T + layer.bias)
    torch.testing.assert_close(layer.weight.grad, upstream.T @ x8)
    torch.testing.assert_close(x.grad, upstream @ weight8)
    halves = torch.randn(3, dtype=torch.bfloat16, requires_grad=True)
    out = rounded(halves, uint8_tensor)
    assert out.dtype == torch.bfloat16
    out.sum().backward()
    assert torch.equal(halves.grad, torch.ones_like(halves))


# the model


def feeds_of(encoder, names):
    """Texts, each a batch of its own, as an ONNX file reads them."""
    return [
        {name: np.array([row.get(name, [0] * len(row["input_ids"]))]) for name in names}
        for row in encoder.tokenize(sentences(5))
    ]


def within_16_bits(weight_OI):
    """CPUs without 8-bit dot products add two products of neighbours in 16 bits: 255 x 127 and next to nothing, or
    255 x 63 twice.
    """
    with torch.no_grad():
        weight_OI.clamp_(-0.35, 0.35)
        weight_OI[:, 0] = 0.8
        weight_OI[1::2, 0] = -0.8
        weight_OI[:, 1] = 0.0


@pytest.mark.training
@pytest.mark.parametrize(
    ("family", "task"),
    [("bert", "classification"), ("bert", "embedding"), ("albert", "classification"), ("electra", "mlm")],
)
def test_a_student_answers_as_its_quantized_file_will(family, task, tmp_path):
    teacher = tiny_encoder(family, task)
    for module in teacher.model.modules():
        if isinstance(module, nn.Linear):
            within_16_bits(module.weight)
    bench = workbench(teacher, tmp_path)
    student = Distill(layers=2, epochs=2, learning_rate=1e-3, fake_quant="int8")(teacher.copy(), bench)
    exported = Export()(student, bench_of(student, tmp_path))
    quantized = Quantize(min_cosine=-1.0)(exported, bench_of(student, tmp_path))
    feeds, output = feeds_of(student, quantized.card.inputs), quantized.card.outputs[-1]  # what the task reads
    with FakeQuant(student, "int8") as found:
        mine = [student.session().run(feed)[output] for feed in feeds]
    ort, plain = (
        [engine("onnxruntime").load(str(one.file)).run(feed)[output] for feed in feeds] for one in (quantized, exported)
    )
    exact = [ReferenceEvaluator(str(quantized.file)).run([output], feed)[0] for feed in feeds]
    for theirs in (exact, ort):
        rest = [np.linalg.norm(a - b) / np.linalg.norm(b - c) for a, b, c in zip(mine, theirs, plain, strict=True)]
        # The same integers; where float32's order of sums tips a tie, a text differs by a step.
        assert np.median(rest) < 1e-3 and max(rest) < 1
    counted = quantized.card.details["accounting"]
    assert found.tables == counted["gathers"]["int8-rows"] == 2
    assert found.dense == sum(number for kind, number in counted["matmuls"].items() if kind.startswith("int8"))
    assert sum(f"{found.dense} weights of dense layers and 2 embedding tables" in note for note in bench.notes) == 1


@pytest.mark.training
def test_what_is_kept_is_a_stock_float_checkpoint(tmp_path):
    teacher = tiny_encoder("albert")
    keys, kinds = list(teacher.model.state_dict()), [type(module) for module in teacher.model.modules()]
    settings = Distill(epochs=1, fake_quant="int8")
    student = settings(teacher.copy(), workbench(teacher, tmp_path / "work"))
    assert list(student.model.state_dict()) == keys
    assert [type(module) for module in student.model.modules()] == kinds
    assert not any(vars(module).get("rounding") for module in student.model.modules())
    assert not student.model._forward_pre_hooks
    assert len(student.model.classifier.weight.unique()) == student.model.classifier.weight.numel(), "not rounded"
    student.save(tmp_path / "out")
    again = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    assert same(dict(again.state_dict()), weights_of(student))
    assert "for int8" in settings.label() and "int8" in settings.promise(*2 * (read_facts(tmp_path / "out"),))
    assert Distill().promise(*2 * (read_facts(tmp_path / "out"),)) == ""


@pytest.mark.training
def test_in_int4_what_is_kept_lies_on_its_grid(tmp_path):
    teacher = tiny_encoder("bert", "mlm")
    bench = workbench(teacher, tmp_path)
    student = Distill(layers=2, epochs=1, fake_quant="int4", block_size=16)(teacher.copy(), bench)
    rows = student.tokenize(sentences(3))
    before, plain = weights_of(student), outputs(student, rows)
    with FakeQuant(student, "int4", 16) as found:
        np.testing.assert_allclose(outputs(student, rows), plain, rtol=1e-4, atol=1e-5)
    query = before["bert.encoder.layer.0.attention.self.query.weight"]
    assert max(len(block.unique()) for block in query.reshape(-1, 16)) <= 16
    assert len(before["bert.encoder.layer.0.attention.self.query.bias"].unique()) == 32
    assert found.dense == 2 * 6 + 2 and found.tables == 2, "the head's is a table's, too"
    assert any("rounded to int4 in blocks of 16; the rounded weights were kept" in note for note in bench.notes)


@pytest.mark.training
@pytest.mark.parametrize("rounding", ["nearest", "gptq"])
def test_the_block_int4_file_answers_as_the_student_that_learnt(rounding, tmp_path):
    teacher = tiny_encoder("electra", "mlm")
    bench = workbench(teacher, tmp_path)
    student = Distill(layers=2, epochs=2, learning_rate=1e-3, fake_quant="int4")(teacher.copy(), bench)
    exported = Export()(student, bench_of(student, tmp_path))
    settings = Quantize(scheme="block-int4", rounding=rounding, min_cosine=-1.0)
    quantized = settings(exported, bench_of(student, tmp_path))
    untaught = settings(Export()(teacher, bench_of(teacher, tmp_path / "t")), bench_of(teacher, tmp_path / "t"))
    rows = student.tokenize(sentences(5))
    lost = np.linalg.norm(outputs(untaught, rows) - outputs(teacher, rows))
    # What is left: scales in half, and activations in bytes, block by block.
    assert np.linalg.norm(outputs(quantized, rows) - outputs(student, rows)) < 0.2 * lost


@pytest.mark.training
def test_a_training_that_dies_leaves_stock_modules(tmp_path):
    teacher = tiny_encoder()
    student = teacher.copy()
    with killed_after(2):
        Distill(epochs=1, batch_size=8, fake_quant="int8")(student, workbench(teacher, tmp_path))
    assert not any(isinstance(module, RoundedLinear | RoundedEmbedding) for module in student.model.modules())
    assert not student.model._forward_pre_hooks


@pytest.mark.training
def test_without_it_nothing_is_touched(tmp_path, monkeypatch):
    monkeypatch.setattr(FakeQuant, "__init__", None)
    teacher = tiny_encoder()
    Distill(layers=2, epochs=1)(teacher.copy(), workbench(teacher, tmp_path))


def gradients(encoder, **fake):
    """What one batch tells every parameter, by name."""
    (row,) = encoder.tokenize(sentences(1))
    ids = torch.tensor([row["input_ids"]])
    with FakeQuant(encoder, **fake) if fake else nullcontext():
        out = encoder.model(input_ids=ids)
        out.logits.square().mean().backward()
    return {name: one.grad for name, one in encoder.model.named_parameters() if one.grad is not None}


@pytest.mark.parametrize("family", ["bert", "albert"])
def test_rounding_that_changes_nothing_changes_nothing(family, monkeypatch):
    """No-op: ties and shared weights hear from all who use them."""
    plain = gradients(tiny_encoder(family, "mlm"))
    for name in ("int8_rows", "uint8_tensor"):
        monkeypatch.setattr(fake_quant, name, torch.clone)
    for is_sharded in (False, True):
        found = gradients(tiny_encoder(family, "mlm"), bits="int8", is_sharded=is_sharded)
        assert found.keys() == plain.keys()
        for name, wanted in plain.items():
            torch.testing.assert_close(found[name], wanted, rtol=1e-4, atol=1e-6)


def test_a_student_of_its_teachers_size_learns_calmly():
    def rate(**settings):
        return Distill(**settings).weights("classification").learning_rate

    assert rate(fake_quant="int8") == pytest.approx(rate() / 5)
    assert rate(fake_quant="int8", layers=2) == rate(layers=2)
    assert rate(fake_quant="int8", learning_rate=3e-4) == 3e-4
    assert rate(fake_quant="int8", trainable="embeddings") == rate(trainable="embeddings")


@pytest.mark.training
@pytest.mark.parametrize(("bits", "num_train"), [("int8", 256), ("int4", 64)])
def test_a_student_learns_to_bear_what_rounding_does_to_it(bits, num_train, tmp_path):
    """The rounded student is nearer to its teacher than the teacher's own weights are, rounded."""
    teacher = tiny_encoder("bert", "embedding")
    rows = teacher.tokenize(sentences(12, seed=9))
    wanted = outputs(teacher, rows)

    def error(encoder):
        with FakeQuant(encoder, bits, 32):
            return float(np.square(outputs(encoder, rows) - wanted).mean())

    before = error(teacher)
    settings = Distill(epochs=8, learning_rate=5e-4, fake_quant=bits)
    student = settings(teacher.copy(), workbench(teacher, tmp_path, num_train=num_train))
    assert error(student) < 0.7 * before


@pytest.mark.training
def test_a_run_that_was_cut_ends_with_the_same_weights(tmp_path):
    teacher = tiny_encoder("albert")
    settings = Distill(epochs=2, batch_size=8, save_steps=5, fake_quant="int8")
    whole = settings(teacher.copy(), workbench(teacher, tmp_path / "whole"))
    bench = workbench(teacher, tmp_path / "cut")
    with killed_after(8):
        settings(teacher.copy(), bench)
    resumed = settings(teacher.copy(), bench)
    assert "resumed from the checkpoint of step 5" in bench.notes
    assert same(weights_of(whole), weights_of(resumed))


def test_what_is_shared_is_rounded_once_in_a_forward_pass(monkeypatch):
    counts = {"int8_rows": 0, "uint8_tensor": 0}

    def counted(name):
        def rule(values):
            counts[name] += 1
            return getattr(rounding, name)(values)

        return rule

    for name in counts:
        monkeypatch.setattr(fake_quant, name, counted(name))
    encoder = tiny_encoder("albert", num_hidden_layers=12)
    (row,) = encoder.tokenize(sentences(1))
    ids = torch.tensor([row["input_ids"]])
    with FakeQuant(encoder, "int8") as found:
        encoder.model(input_ids=ids)
        # two groups, projection, pooler and classifier, each once; rows of words and of positions
        assert counts["int8_rows"] == found.dense + 2 == 2 * 6 + 3 + 2
        assert counts["uint8_tensor"] == 12 * 4 + 3, "query, key and value read one input"
        first = encoder.model(input_ids=ids).logits
        with torch.no_grad():
            encoder.model.classifier.weight.mul_(2.0)
        torch.testing.assert_close(encoder.model(input_ids=ids).logits, 2 * first)
        twin = copy.deepcopy(encoder.model)  # as it is cut into pieces
        torch.testing.assert_close(twin(input_ids=ids).logits, 2 * first)
        assert twin.classifier.rounding is twin.albert.pooler.rounding is not encoder.model.classifier.rounding
    with FakeQuant(encoder, "int8", is_sharded=True):
        torch.testing.assert_close(encoder.model(input_ids=ids).logits, 2 * first)


def test_activations_that_are_computed_twice_give_the_same_gradients():
    encoder = tiny_encoder("bert", attention_probs_dropout_prob=0.0, hidden_dropout_prob=0.0)
    once = {name: one.clone() for name, one in gradients(encoder, bits="int8").items()}
    encoder.model.zero_grad()
    encoder.model.activation_checkpointing_enable()
    encoder.model.train()
    twice = gradients(encoder, bits="int8")
    assert same(once, twice)


@pytest.mark.training
def test_the_student_is_judged_as_it_will_be_shipped(tmp_path):
    seen = []
    teacher = tiny_encoder()
    bench = workbench(teacher, tmp_path)
    bench.choose = lambda model: seen.append(type(model.model.classifier)) or float(len(seen))
    Distill(epochs=1, early_stopping_patience=9, eval_steps=1, fake_quant="int8")(teacher.copy(), bench)
    assert seen and set(seen) == {RoundedLinear}


@pytest.mark.training
@pytest.mark.parametrize(
    "more",
    [
        {
            "layers": 2,
            "attention_weight": 1.0,
            "relation_weight": 1.0,
            "hidden_loss": "mse",
            "gradient_accumulation_steps": 2,
        },
        {"layers": 2, "hidden_size": 16, "heads": 2, "gradient_checkpointing": True},
        {"teacher_cache": True, "precision": "bfloat16", "dropout": True},
        {"precision": "bfloat16", "gradient_checkpointing": True},
    ],
)
def test_it_goes_with_whatever_else_is_set(more, tmp_path):
    teacher = tiny_encoder("bert")
    bench = workbench(teacher, tmp_path)
    bench.cache = tmp_path / "cache"
    before = weights_of(teacher)
    student = Distill(epochs=1, fake_quant="int8", **more)(teacher.copy(), bench)
    assert all(bool(tensor.isfinite().all()) for tensor in student.model.state_dict().values())
    assert not same(weights_of(student), before)


@pytest.mark.training
def test_embeddings_alone_can_learn_to_be_rounded(tmp_path):
    teacher = tiny_encoder("albert")
    before = weights_of(teacher)
    settings = Distill(epochs=1, trainable="embeddings", fake_quant="int8")
    student = settings(teacher.copy(), workbench(teacher, tmp_path))
    moved = {name for name, one in student.model.named_parameters() if not torch.equal(one, before[name])}
    assert moved and all("embedding" in name for name in moved)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (
            {"fake_quant": "int8", "match_layers": 2, "trainable": "embeddings"},
            "which `match_layers` sums",
        ),
        ({"fake_quant": "int8", "block_size": 32}, "only int4 has blocks"),
        ({"block_size": 32}, "only int4 has blocks"),
        ({"fake_quant": "int2"}, "int8"),
    ],
)
def test_what_does_not_go_together_is_refused(given, says):
    with pytest.raises(ValidationError, match=says):
        Distill(**given)


def test_a_matrix_that_nothing_rounds_is_no_secret():
    encoder = tiny_encoder()
    encoder.model.classifier = nn.Bilinear(32, 1, 2)  # of three axes, and beside it a matrix
    encoder.model.classifier.matrix = nn.Parameter(torch.ones(32, 32))
    with pytest.raises(CheckFailed, match=r"`classifier\.matrix` is multiplied by no module"):
        FakeQuant(encoder, "int8")
