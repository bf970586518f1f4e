"""`share`: which layers share, how a group's weights are chosen, what is promised and what is made, bad input."""

import copy
import json
import re
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
import transformers
from pydantic import ValidationError

from bertshrink.cli.app import run
from bertshrink.errors import UserError
from bertshrink.model.checkpoint_info import read_facts
from bertshrink.model.conversion import assemble, decompose
from bertshrink.model.sizes.parameter_count import num_parameters
from bertshrink.model.sizes.size_estimate import of_encoder
from bertshrink.model.tasks import TASKS
from bertshrink.techniques.export import Export
from bertshrink.techniques.factorize import Factorize
from bertshrink.techniques.quantize import Quantize
from bertshrink.techniques.share import Share
from bertshrink.techniques.share.fit_head import fitted_head
from bertshrink.techniques.share.fitting import GroupBatch, group_weights, mean_of
from tests.support.families import CONVERTED
from tests.support.pairwise import matrix
from tests.support.tiny import bench_of, outputs, sentences, tiny_encoder, tiny_texts


def apart(task="classification", **more):
    """An ALBERT whose four layers have weights of their own."""
    encoder = tiny_encoder("bert", task, **more)
    return assemble(encoder, decompose(encoder), "albert")


def layers_of(encoder):
    return [group.albert_layers[0] for group in encoder.model.base_model.encoder.albert_layer_groups]


@pytest.mark.slow
@matrix(("family", "task"), CONVERTED, TASKS, strength=1)
def test_the_plan_knows_what_comes_out(family, task, tmp_path):
    encoder = tiny_encoder(family, task)
    encoder.save(tmp_path / "m")
    facts = read_facts(tmp_path / "m", task)
    settings = Share(groups=1, steps=1)
    promised = settings.fit(facts)
    found = settings(encoder.copy(), bench_of(encoder, tmp_path))
    found.save(tmp_path / "out")
    made = read_facts(tmp_path / "out", task)
    assert (made.anatomy.family, made.shape) == (promised.anatomy.family, promised.shape)
    assert made.shape.num_groups == 1 and made.labels == facts.labels
    for each, model in ((facts, encoder), (promised, found)):
        assert num_parameters(each) == sum(p.numel() for p in model.model.parameters())
    assert "saves memory, not time" in settings.promise(facts, promised)


@pytest.mark.parametrize("family", CONVERTED)
def test_as_many_groups_as_there_are_change_nothing_bit_for_bit(family, tmp_path):
    encoder = tiny_encoder(family)
    bench = bench_of(encoder, tmp_path)
    given = encoder.copy()
    found = Share(groups=encoder.shape.num_groups)(given, bench)
    assert type(found.model) is type(encoder.model)
    for mine, theirs in zip(found.model.parameters(), encoder.model.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    assert any("nothing changed" in note for note in bench.notes)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["mean", "best", "fitted"])
@pytest.mark.parametrize(("groups", "members"), [(1, (0, 0, 0, 0)), (2, (0, 0, 1, 1)), (3, (0, 0, 1, 2))])
def test_layers_that_are_equal_already_share_without_loss(groups, members, method, tmp_path):
    """Oracle: the groups are stock ALBERT's, int(i / (L / G)), also where G does not divide L."""
    encoder = tiny_encoder("bert")
    layers = encoder.model.base_model.encoder.layer
    for i, group in enumerate(members):
        layers[i].load_state_dict(copy.deepcopy(layers[members.index(group)].state_dict()))
    bench = bench_of(encoder, tmp_path)
    found = Share(groups=groups, method=method, steps=3)(encoder.copy(), bench)
    found.save(tmp_path / "out")
    again = transformers.AlbertForSequenceClassification.from_pretrained(tmp_path / "out")
    assert again.config.num_hidden_groups == groups
    rows = encoder.tokenize(sentences(12, seed=3))
    # A step of Adam on an error that is rounding alone moves the weights a little.
    assert np.abs(outputs(found, rows) - outputs(encoder, rows)).max() < (0.02 if method == "fitted" else 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["bert", "albert", "distilbert"])
def test_fitted_is_nearer_than_best_and_best_than_mean(family, tmp_path):
    encoder = tiny_encoder(family, "embedding", num_hidden_groups=4) if family == "albert" else tiny_encoder(family)
    errors = {}
    for method in ("mean", "best", "fitted"):
        bench = bench_of(encoder, tmp_path)
        Share(groups=2, method=method, steps=60)(encoder.copy(), bench)
        note = next(note for note in bench.notes if "error of each group" in note)
        errors[method] = [float(part.split()[-1]) for part in note.partition(f"{method}: ")[2].split(",")]
    assert errors["fitted"][0] < 0.8 * errors["best"][0]
    assert errors["best"][0] <= errors["mean"][0]


def batch_of(encoder, number=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    states = torch.randn((number, 5, 32), generator=generator)
    mask = torch.ones(number, 5, dtype=torch.bool)
    mask[0, 3:] = False
    return GroupBatch(states, states, mask)


class _Silent:
    def advance(self, steps=1, **fields):
        pass


def test_best_is_the_layer_with_the_least_error_and_mean_is_the_mean():
    encoder = apart()
    layers, batch = layers_of(encoder), batch_of(encoder)

    def error(layer):
        """As the module's text has it, a token at a time."""
        with torch.no_grad():
            wanted, found, total = batch.wanted_BLH, batch.given_BLH, 0.0
            for each in layers:
                wanted, found = each(wanted, batch.bias_B11L), layer(found, batch.bias_B11L)
                tokens = [(b, i) for b in range(6) for i in range(5) if batch.mask_BL[b, i]]
                wrong = sum(float((found[b, i] - wanted[b, i]).square().sum()) for b, i in tokens)
                total += wrong / sum(float(wanted[b, i].square().sum()) for b, i in tokens)
            return total / len(layers)

    errors = [error(layer) for layer in layers]
    layer, after, start, _ = group_weights(layers, [batch], "best", 1, 1e-3, _Silent())
    assert torch.equal(layer.ffn.weight, layers[int(np.argmin(errors))].ffn.weight)
    assert start == pytest.approx(min(errors), rel=1e-4)
    mean = mean_of(layers)
    assert torch.allclose(mean.ffn.weight, sum(layer.ffn.weight for layer in layers) / 4)
    _, _, start, _ = group_weights(layers, [batch], "mean", 1, 1e-3, _Silent())
    assert start == pytest.approx(error(mean), rel=1e-4)
    with torch.no_grad():
        states = batch.wanted_BLH
        for each in layers:
            states = each(states, batch.bias_B11L)
    assert torch.equal(after[0].wanted_BLH, states)


def test_what_stands_at_padding_changes_no_group():
    layers = layers_of(apart())
    batch = batch_of(None)
    other = GroupBatch(batch.given_BLH.clone(), batch.wanted_BLH.clone(), batch.mask_BL)
    for states in (other.given_BLH, other.wanted_BLH):
        states[0, 3:] = 7.0
    first, second = (group_weights(layers, [one], "fitted", 5, 1e-3, _Silent())[0] for one in (batch, other))
    assert torch.allclose(first.ffn.weight, second.ffn.weight, atol=1e-6)


@pytest.mark.slow
def test_a_group_makes_good_what_the_one_before_it_lost(tmp_path):
    """The second group is fitted to states that the first one gives, so it is asked for more than its layers' own."""
    encoder = tiny_encoder("bert", "embedding")
    rows = encoder.tokenize(sentences(40, seed=5))
    wanted = outputs(encoder, rows)
    near, far = (
        np.abs(
            outputs(Share(groups=2, method=method, steps=60)(encoder.copy(), bench_of(encoder, tmp_path)), rows)
            - wanted
        )
        for method in ("fitted", "mean")
    )
    assert near.mean() < 0.8 * far.mean()


def test_a_shared_model_is_shared_further_and_never_less(tmp_path):
    encoder = tiny_encoder("albert")
    assert Share(groups=1, steps=2)(encoder.copy(), bench_of(encoder, tmp_path)).shape.num_groups == 1
    encoder.save(tmp_path / "m")
    with pytest.raises(UserError, match="`groups` is 3; the model's layers share 2 sets of weights already"):
        Share(groups=3).fit(read_facts(tmp_path / "m"))


def test_what_shared_layers_leave_of_a_size_goes_to_the_tables(tmp_path):
    encoder = tiny_encoder("bert", "embedding")
    encoder.save(tmp_path / "m")
    facts = read_facts(tmp_path / "m", "embedding")
    shared = Share(groups=1, steps=1).fit(facts)
    settings = Factorize(
        max_size=f"{of_encoder(replace(shared, shape=replace(shared.shape, embedding_size=9))).num_bytes} B"
    )
    with pytest.raises(UserError, match="with tables of width 1") as caught:
        settings.fit(facts)
    assert "`share`, as a stage before this one" in caught.value.hint
    assert settings.fit(shared).shape.embedding_size == 9
    small = settings(Share(groups=1, steps=1)(encoder, bench_of(encoder, tmp_path)), bench_of(encoder, tmp_path))
    assert (small.shape.embedding_size, small.shape.num_groups) == (9, 1)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["distilbert", "electra"])
@pytest.mark.parametrize("task", ["classification", "multi-label", "regression"])
def test_a_head_that_albert_has_not_is_fitted_and_called_approximate(family, task, tmp_path):
    encoder = tiny_encoder(family, task)
    bench = bench_of(encoder, tmp_path)
    found = Share(groups=2, steps=2)(encoder.copy(), bench)
    assert found.anatomy.family == "albert"
    said = next(note for note in bench.notes if note.startswith("approximate"))
    assert "one was fitted to the model's outputs" in said and "texts" in said


@pytest.mark.parametrize("act", [torch.relu, torch.nn.functional.gelu])
def test_a_fitted_head_answers_like_the_other_one(act):
    generator = torch.Generator().manual_seed(0)
    states = torch.randn((600, 16), generator=generator)
    first, last = torch.randn((16, 16), generator=generator), torch.randn((3, 16), generator=generator)
    given = {"first": {"weight": first, "bias": first[0]}, "last": {"weight": last, "bias": last[:, 0]}}
    answers = act(states @ first.T + first[0]) @ last.T + last[:, 0]
    head, said = fitted_head(given, states, answers, "classification")
    mine = torch.tanh(states @ head["first"]["weight"].T + head["first"]["bias"]) @ head["last"]["weight"].T
    mine += head["last"]["bias"]
    assert (mine - answers).square().mean() < 0.1 * answers.var()
    assert float(re.search(r"([\d.]+)%", said)[1]) > 80 and "60 texts held out of the fit" in said


@pytest.mark.parametrize("groups", [0, -1])
def test_numbers_of_groups_that_mean_nothing_are_refused(groups):
    with pytest.raises(ValidationError, match="greater than or equal to 1"):
        Share(groups=groups)


def test_more_groups_than_layers_are_refused(tmp_path):
    encoder = tiny_encoder()
    encoder.save(tmp_path / "m")
    with pytest.raises(UserError, match="`groups` is 5; the model has 4 layers"):
        Share(groups=5).fit(read_facts(tmp_path / "m"))
    with pytest.raises(UserError, match="`groups` is 5; the model has 4 layers"):
        Share(groups=5)(encoder, bench_of(encoder, tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("num_groups", [1, 2])
def test_an_exported_file_keeps_one_copy_of_each_shared_weight_and_quantizes_all_its_products(num_groups, tmp_path):
    encoder = tiny_encoder("bert", intermediate_size=96)
    shared = Share(groups=num_groups, steps=1)(encoder, bench_of(encoder, tmp_path))
    bench = bench_of(shared, tmp_path)
    artifact = Export()(shared, bench)
    graph = onnx.load(artifact.file).graph
    held = sum(
        int(np.prod(t.dims)) for t in graph.initializer if len(t.dims) == 2 and t.data_type == onnx.TensorProto.FLOAT
    )
    matrices = sum(p.numel() for p in shared.model.parameters() if p.dim() == 2)
    assert held <= matrices
    assert sum(tensor.dims[:] in ([32, 96], [96, 32]) for tensor in graph.initializer) == 2 * num_groups
    small = Quantize(min_cosine=0.5)(artifact, bench)
    graph = onnx.load(small.file).graph
    wide = [
        t
        for t in graph.initializer
        if len(t.dims) == 2 and t.data_type == onnx.TensorProto.FLOAT and np.prod(t.dims) > 256
    ]
    assert not wide, [t.name for t in wide]
    bytes_held = [
        t.dims[:] for t in graph.initializer if t.data_type in (onnx.TensorProto.INT8, onnx.TensorProto.UINT8)
    ]
    assert sum(list(dims) in ([32, 96], [96, 32]) for dims in bytes_held) == 2 * num_groups


def test_explain_reads_pairs_as_a_sentence_encoder_does(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    tiny_encoder("bert", "embedding").save(tmp_path / "m")
    texts = sentences(80, seed=6, shortest=9)
    lines = [f"{first}\t{second}" for first, second in zip(texts[:40], texts[40:], strict=True)]
    for side, rows in (("train", lines[:30]), ("dev", lines[30:])):
        (tmp_path / f"{side}.tsv").write_text("sentence1\tsentence2\n" + "\n".join(rows) + "\n")
    assert run(["factorize", "m", "--rank", "8", "--data", ".", "--dry-run", "--json", "-q"]) == 0
    notes = json.loads(capsys.readouterr().out)["notes"]
    assert any(note.startswith("calibrated with 60 training texts") for note in notes), notes


@pytest.mark.training
def test_one_command_factorizes_shares_and_recovers(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    encoder = tiny_encoder()
    encoder.save(tmp_path / "m")
    lines = [
        f"{text}\t{label}" for text, label in zip(tiny_texts("classification").train.texts, [0, 1] * 500, strict=False)
    ]
    (tmp_path / "d.tsv").write_text("sentence\tlabel\n" + "\n".join(lines) + "\n")

    def factorize(*more):
        code = run(["factorize", "m", "--no-latency", "-q", "--data", "d.tsv", "--rank", "8", *more])
        return code, *capsys.readouterr()

    code, _, told = factorize("--share-groups", "2", "--share-steps", "2", "--epochs", "1", "-o", "out")
    assert code == 0, told
    config = transformers.AutoConfig.from_pretrained(tmp_path / "out")
    assert (config.embedding_size, config.num_hidden_groups, config.model_type) == (8, 2, "albert")
    (run_folder,) = (tmp_path / "runs").glob("factorize-*")
    report = json.loads((run_folder / "report.json").read_text())
    assert [s["label"] for s in report["snapshots"] if s["role"] == "stage"] == [
        "factorize to rank 8",
        "share 2 groups of layers",
        "distill",
    ]
    code, _, told = factorize("--share-groups", "5", "-o", "wide")
    assert code == 2 and "--share-groups" in told and not (tmp_path / "wide").exists()
    runs = sorted((tmp_path / "runs").iterdir())
    code, printed, told = factorize("--share-groups", "2", "--dry-run", "--json")
    assert code == 0, told
    answer = json.loads(printed)
    assert [stage["stage"] for stage in answer["stages"]] == ["factorize to rank 8", "share 2 groups of layers"]
    assert all("saves memory, not time" in stage["buys"] for stage in answer["stages"])
    rows = answer["tables"]["factorize"]
    assert [row["rank"] for row in rows] == [8, 16, 32]
    for name in ("parameters", "bytes", "energy", "cosine"):
        values = [row[name] for row in rows]
        assert values == sorted(values)
    assert rows[-1]["energy"] == pytest.approx(1) and rows[-1]["cosine"] == pytest.approx(1, abs=1e-5)
    assert rows[0]["cosine"] < 0.99 and sorted((tmp_path / "runs").iterdir()) == runs, "nothing was made"
    code, printed, _ = factorize("--dry-run")
    assert code == 0 and "energy" in printed and "calibrated with" in printed
