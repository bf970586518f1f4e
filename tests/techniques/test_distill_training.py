"""Training for real on tiny models: it learns, it checkpoints, it goes on."""

import json

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from bertshrink.data.texts import Split, TextDataset
from bertshrink.errors import CheckFailed, UserError
from bertshrink.meters.quality.evaluators import prepare
from bertshrink.model.checkpoint_info import read_facts
from bertshrink.model.families import FAMILIES
from bertshrink.model.sizes.components import component_of
from bertshrink.model.tasks import TASKS
from bertshrink.techniques.base import Workbench
from bertshrink.techniques.distill import Distill
from bertshrink.techniques.distill.layer_maps import align
from bertshrink.techniques.distill.student import reduce_layers
from bertshrink.training import loop, trainer
from bertshrink.training.checkpoint_integrity import CHECKPOINTS, newest_checkpoint
from tests.support.subprocess_kill import killed_after
from tests.support.tiny import sentences, tiny_encoder, tiny_texts

pytestmark = pytest.mark.training


def workbench(teacher, folder, num_train=48, num_dev=24):
    return Workbench(texts=tiny_texts(teacher.task, num_train, num_dev), teacher=teacher, work=folder, seed=0)


@pytest.mark.parametrize("task", TASKS)
def test_training_brings_the_student_nearer_to_its_teacher(task, tmp_path):
    teacher = tiny_encoder("bert", task)
    num_train, epochs, rate = (512, 3, 3e-3) if task == "regression" else (128, 4, 6e-3)
    bench = workbench(teacher, tmp_path, num_train=num_train)
    settings = Distill(layers=2, epochs=epochs, learning_rate=rate, dropout=False)
    exam = prepare(teacher, bench.texts, None, 0)
    exam.sit(teacher)
    measure = {"embedding": "spearman", "sparse-embedding": "term_overlap"}.get(task, "agreement")

    def score(model):
        return next(m.value for m in exam.sit(model) if m.metric == measure)

    before = score(reduce_layers(teacher, (2, 4)))
    student = settings(teacher.copy(), bench)
    assert score(student) > before + (0.03 if task == "question-answering" else 0.1)
    losses = [entry["loss"] for entry in bench.history]
    assert losses[-1] < 0.8 * losses[0]
    assert bench.baselines[0][0] == "untrained" and bench.notes


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_trains_and_saves(family, tmp_path):
    teacher = tiny_encoder(family)
    before = {name: tensor.clone() for name, tensor in teacher.model.state_dict().items()}
    student = Distill(layers=2, epochs=1)(teacher.copy(), workbench(teacher, tmp_path))
    assert student.shape.num_layers == 2 and not student.model.training
    assert all(torch.equal(before[name], tensor) for name, tensor in teacher.model.state_dict().items())


@pytest.mark.parametrize("family", FAMILIES)
def test_embeddings_alone_learn_where_that_is_asked(family, tmp_path):
    teacher = tiny_encoder(family)
    student = Distill(epochs=1, trainable="embeddings")(tiny_encoder(family, seed=1), workbench(teacher, tmp_path))
    before = dict(tiny_encoder(family, seed=1).model.named_parameters())
    moved = {name for name, tensor in student.model.named_parameters() if not torch.equal(tensor, before[name])}
    assert moved == {name for name in before if component_of(teacher.anatomy, name) == "embeddings"}
    assert all(parameter.requires_grad for parameter in student.model.parameters())


ONE_OF_ITS_KIND = ("distilbert", "electra")
"""Families whose embeddings are not like BERT's or ALBERT's, which the last two cases have."""


@pytest.mark.parametrize(
    ("family", "task"),
    [
        *(
            pytest.param(family, "classification", marks=() if family in ONE_OF_ITS_KIND else pytest.mark.matrix)
            for family in FAMILIES
        ),
        ("bert", "embedding"),
        ("albert", "mlm"),
    ],
)
def test_embeddings_learn_from_the_first_layers_alone(family, task, tmp_path):
    teacher = tiny_encoder(family, task)
    student = shaken(teacher)
    rows = teacher.tokenize(sentences(20, seed=9))
    wanted = torch.cat([states_of(teacher, row) for row in rows])

    def error():
        return float((torch.cat([states_of(student, row) for row in rows]) - wanted).square().mean())

    before, start = error(), {name: tensor.clone() for name, tensor in student.model.named_parameters()}
    settings = Distill(epochs=2, trainable="embeddings", match_layers=2, learning_rate=2e-3)
    bench = workbench(teacher, tmp_path, num_train=64)
    assert settings(student, bench) is student
    assert error() < 0.9 * before
    moved = {name for name, tensor in student.model.named_parameters() if not torch.equal(tensor, start[name])}
    assert moved <= {name for name in start if component_of(teacher.anatomy, name) == "embeddings"} and moved
    assert any("first 2 of 4 layers" in note for note in bench.notes)
    assert any("drawn from the whole vocabulary" in note for note in bench.notes)


def shaken(teacher):
    """The teacher with other word embeddings: something to recover."""
    student = teacher.copy()
    torch.manual_seed(3)
    words = student.model.get_input_embeddings().weight
    with torch.no_grad():
        words += 0.3 * words.std() * torch.randn_like(words)
    return student


def test_with_depth_the_table_learns_by_rows_and_norms_and_biases_do_not_decay(tmp_path, monkeypatch):
    made = []

    class Spy(trainer.WhitenedRowAdagrad):
        def __init__(self, *given):
            super().__init__(*given)
            made.append(self)

    monkeypatch.setattr(trainer, "WhitenedRowAdagrad", Spy)
    teacher = tiny_encoder()
    bench = workbench(teacher, tmp_path, num_train=32)
    settings = Distill(epochs=1, trainable="embeddings", match_layers=2, weight_decay=0.2)
    assert settings.model_dump()["batch_size"] == 8, "the report and the fingerprint tell it"
    assert Distill(epochs=1, trainable="embeddings", match_layers=2, batch_size=4).batch_size == 4
    settings(shaken(teacher), bench)
    decayed, rest, tables = made[0].param_groups
    vocab, width = teacher.shape.vocab_size, teacher.shape.hidden_size
    assert [tuple(one.shape) for one in tables["params"]] == [(vocab, width)] and tables["is_table"]
    assert tables["initial_lr"] == 10 * rest["initial_lr"] == pytest.approx(1e-2)
    assert sorted(one.dim() for one in rest["params"]) == [1, 1] and rest["weight_decay"] == 0
    assert (width, width) in [tuple(one.shape) for one in decayed["params"]] and decayed["weight_decay"] == 0.2
    assert all(one.dim() == 2 for one in decayed["params"])
    assert max(entry["step"] for entry in bench.history) == 2 * 32 / 8
    assert any("hidden states last" in note for note in bench.notes)
    Distill(epochs=1, trainable="embeddings")(shaken(teacher), workbench(teacher, tmp_path / "all"))
    assert len(made) == 1, "without depth all learn by AdamW"


def test_a_recovery_that_was_cut_goes_on_to_the_same_weights(tmp_path):
    teacher = tiny_encoder()
    settings = Distill(epochs=2, trainable="embeddings", match_layers=2, save_steps=5)
    whole = settings(shaken(teacher), workbench(teacher, tmp_path / "whole"))

    bench = workbench(teacher, tmp_path / "cut")
    with killed_after(8):
        settings(shaken(teacher), bench)
    resumed = settings(shaken(teacher), bench)
    assert "resumed from the checkpoint of step 5" in bench.notes
    for (name, one), (_, other) in zip(whole.model.named_parameters(), resumed.model.named_parameters(), strict=True):
        assert torch.equal(one, other), name


def test_a_student_that_keeps_its_size_learns_without_dropout_unless_it_is_asked_for():
    def dropout(**settings):
        return Distill(**settings).weights("classification").dropout

    assert (dropout(), dropout(dropout=True)) == (False, True)
    assert dropout(layers=2) and dropout(layer_map=(1, 3)) and dropout(intermediate_size=16)
    assert Distill(trainable="embeddings").weights("classification").learning_rate == 1e-3


def states_of(encoder, row):
    with torch.no_grad():
        ids = torch.tensor([row["input_ids"]])
        return encoder.model.base_model(input_ids=ids).last_hidden_state[0]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"match_layers": 2}, "set `trainable: embeddings`"),
        ({"match_layers": 2, "trainable": "embeddings", "layers": 2}, "`layers` needs all layers"),
        ({"match_layers": 2, "trainable": "embeddings", "soft_weight": 1.0}, "`soft_weight` needs all layers"),
        (
            {"match_layers": 2, "trainable": "embeddings", "early_stopping_patience": 2},
            "`early_stopping_patience` needs all layers",
        ),
    ],
)
def test_a_depth_that_fits_nothing_is_refused(given, says):
    with pytest.raises(ValidationError, match=says):
        Distill(**given)


def test_a_depth_beyond_the_layers_or_with_another_teacher_is_refused(tmp_path):
    teacher = tiny_encoder()
    teacher.save(tmp_path / "m")
    settings = Distill(trainable="embeddings", match_layers=5)
    with pytest.raises(UserError, match="`match_layers` is 5; the model has 4 layers"):
        settings.fit(read_facts(tmp_path / "m"))
    short = reduce_layers(tiny_encoder(), (1, 4))
    with pytest.raises(UserError, match="the model has 2 of width 32, its teacher 4 of width 32"):
        Distill(trainable="embeddings", match_layers=2)(short, workbench(teacher, tmp_path))


def test_a_student_of_full_depth_starts_equal_and_learns_nothing_new(tmp_path):
    """No-op: the teacher distilled into itself has no loss, and hardly moves."""
    teacher = tiny_encoder("bert", "embedding")
    bench = workbench(teacher, tmp_path)
    settings = Distill(epochs=1, dropout=False, weight_decay=0.0, learning_rate=1e-6)
    student = settings(teacher.copy(), bench)
    assert bench.history[0]["loss"] < 1e-4
    rows = teacher.tokenize(sentences(6))
    for mine, theirs in zip(student.predict(rows), teacher.predict(rows), strict=True):
        assert np.allclose(mine["sentence_embedding"], theirs["sentence_embedding"], atol=1e-3)


def test_resuming_continues_from_the_newest_sealed_checkpoint(tmp_path):
    teacher = tiny_encoder()
    settings = Distill(layers=2, epochs=2, batch_size=8, save_steps=3)
    whole = settings(teacher.copy(), workbench(teacher, tmp_path / "whole"))

    def stop_at(step):
        class Stop(Exception):
            pass

        original = loop.BucketTrainer.training_step

        def training_step(self, *args, **kwargs):
            if self.state.global_step == step:
                raise Stop
            return original(self, *args, **kwargs)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(loop.BucketTrainer, "training_step", training_step)
            with pytest.raises(Stop):
                settings(teacher.copy(), workbench(teacher, tmp_path / "cut"))

    stop_at(8)
    folder = tmp_path / "cut" / CHECKPOINTS
    assert newest_checkpoint(folder).name == "checkpoint-6"
    bench = workbench(teacher, tmp_path / "cut")
    student = settings(teacher.copy(), bench)
    assert any("step 6" in note for note in bench.notes)
    mine, theirs = student.model.state_dict(), whole.model.state_dict()
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)  # the same weights as without the stop
    assert [e["step"] for e in bench.history] == sorted({e["step"] for e in bench.history})


def test_a_damaged_checkpoint_does_not_count(tmp_path):
    teacher = tiny_encoder()
    settings = Distill(layers=2, epochs=2, batch_size=8, save_steps=4)
    settings(teacher.copy(), workbench(teacher, tmp_path))
    folder = tmp_path / CHECKPOINTS
    newest = newest_checkpoint(folder)
    weights = newest / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    older = newest_checkpoint(folder)
    assert older is not None and older != newest and not newest.exists()
    (older / "MANIFEST.json").unlink()  # killed before it was sealed
    assert newest_checkpoint(folder) is None


def test_divergence_is_a_failed_check_not_a_number(tmp_path):
    teacher = tiny_encoder()
    with torch.no_grad():
        teacher.model.classifier.weight.fill_(3e38)
    with pytest.raises(CheckFailed, match="no step had a finite loss"):
        Distill(layers=2, epochs=1)(teacher.copy(), workbench(teacher, tmp_path / "short"))
    with pytest.raises(CheckFailed, match=r"not finite at step .*training diverged"):
        Distill(layers=2, epochs=2, max_nonfinite_steps=2)(teacher.copy(), workbench(teacher, tmp_path / "long"))


def test_a_batch_without_a_masked_token_is_no_divergence(tmp_path):
    teacher = tiny_encoder("bert", "mlm")
    settings = Distill(layers=2, epochs=1, batch_size=1, mask_share=0.01)
    assert settings(teacher.copy(), workbench(teacher, tmp_path, num_train=8)).shape.num_layers == 2


def test_labels_that_are_not_the_teachers_are_refused(tmp_path):
    teacher = tiny_encoder()
    bench = workbench(teacher, tmp_path)
    strange = Split(bench.texts.train.texts, labels=tuple("AB"[i % 2] for i in range(len(bench.texts.train))))
    bench.texts = TextDataset("strange", strange, bench.texts.dev)
    with pytest.raises(UserError, match="`A`, `B` in the data, `negative`, `positive` in the teacher"):
        Distill(layers=2)(teacher.copy(), bench)


@pytest.mark.parametrize(
    ("chosen", "num_layers", "depth", "expected"),
    [
        ((1, 3, 6), 6, 6, (1, 3, 6)),  # cut from the teacher
        ((1, 2, 3), 6, 6, (1, 2, 6)),  # likewise, but the last states belong together
        ((1, 2, 3, 4), 4, 4, (1, 2, 3, 4)),  # the teacher's own depth
        ((1, 2), 2, 6, (1, 6)),  # made smaller before
        ((1, 2, 4), 4, 6, (1, 4, 6)),  # cut twice: layer 2 of 4 was never the teacher's layer 2
    ],
)
def test_states_are_aligned_with_the_layers_they_came_from(chosen, num_layers, depth, expected):
    assert align(chosen, num_layers, depth) == list(enumerate(expected, start=1))


def test_a_student_cut_twice_is_compared_with_the_teachers_last_state(tmp_path, monkeypatch):
    from bertshrink.techniques.distill import apply

    seen = []

    class Spy(apply.DistillationLoss):
        def __init__(self, student, teacher, task, weights, aligned, **more):
            seen.append(aligned)
            super().__init__(student, teacher, task, weights, aligned, **more)

    monkeypatch.setattr(apply, "DistillationLoss", Spy)
    teacher = tiny_encoder(num_hidden_layers=6)
    first = Distill(layers=4, epochs=1)(teacher.copy(), workbench(teacher, tmp_path / "1"))
    Distill(layers=2, epochs=1)(first, workbench(teacher, tmp_path / "2"))
    assert seen == [[(1, 1), (2, 3), (3, 4), (4, 6)], [(1, 1), (2, 6)]]


def test_history_is_plain_numbers(tmp_path):
    teacher = tiny_encoder("bert", "embedding")
    bench = workbench(teacher, tmp_path)
    Distill(layers=2, epochs=1)(teacher.copy(), bench)
    assert json.loads(json.dumps(bench.history)) == bench.history
    assert {"step", "loss", "vector", "structure", "hidden"} <= set(bench.history[0])


def test_a_run_killed_after_its_last_step_does_nothing_more(tmp_path):
    """Between the last checkpoint and the stored stage are evaluation and saving: a kill there must not train on."""
    teacher = tiny_encoder()
    settings = Distill(layers=2, epochs=2, batch_size=8, save_steps=4)
    first = settings(teacher.copy(), workbench(teacher, tmp_path))
    assert newest_checkpoint(tmp_path / CHECKPOINTS).name == "checkpoint-12"
    bench = workbench(teacher, tmp_path)
    second = settings(teacher.copy(), bench)
    mine, theirs = first.model.state_dict(), second.model.state_dict()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    assert bench.history[-1]["step"] == 12
