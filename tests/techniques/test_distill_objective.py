"""What a batch costs: every task, what is read of a model, and who gets a gradient."""

import pytest
import torch

from bertshrink.data.encoding import encode
from bertshrink.model.families import FAMILIES, shared_group
from bertshrink.model.tasks import TASKS
from bertshrink.techniques.distill.defaults import DEFAULTS, LossWeights
from bertshrink.techniques.distill.objective import DistillationLoss, wanted
from bertshrink.techniques.distill.student import reduce_layers
from bertshrink.techniques.distill.teacher import LiveTeacher, Wanted, run_model
from bertshrink.training.losses import task_loss
from bertshrink.training.rows.batching import Collator
from bertshrink.training.rows.masking import TokenMasker
from tests.support.families import THINNED
from tests.support.tiny import sentences, tiny_encoder, tiny_split


def batch_of(encoder, labelled=True, num=6):
    found = encode(encoder.task, encoder.tokenizer, tiny_split(encoder.task, num), 64, encoder.labels, "salad")
    masker = TokenMasker(encoder.tokenizer, 0.3, whole_word=False, seed=0) if encoder.task == "mlm" else None
    collate = Collator(encoder.task, encoder.tokenizer.pad_token_id, len(encoder.labels), masker)
    labels = found.labels if labelled else [None] * num
    return collate([(row, label, i, 0) for i, (row, label) in enumerate(zip(found.rows, labels, strict=True))])


def objective_of(teacher, student, weights, aligned=((1, 2), (2, 4))):
    live = LiveTeacher(teacher, wanted(weights, aligned)[1])
    widths = (student.shape.hidden_size, teacher.shape.hidden_size)
    return DistillationLoss(student.model, live, teacher.task, weights, aligned, widths, (4, 4), teacher.pooling), live


@pytest.mark.parametrize("task", TASKS)
def test_every_task_costs_something_and_only_the_student_learns(task):
    teacher = tiny_encoder("bert", task)
    student = reduce_layers(teacher, (2, 4))
    objective, live = objective_of(teacher, student, DEFAULTS[task])
    loss, parts = objective(**batch_of(teacher))
    loss.backward()
    assert torch.isfinite(loss) and float(loss.detach()) > 0
    assert set(parts) >= {"hidden"} and all(torch.isfinite(value) for value in parts.values())
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in student.model.parameters())
    assert all(p.grad is None for p in live.module.parameters())
    assert not any(name.startswith("_teacher") for name in objective.state_dict())


@pytest.mark.parametrize("task", [name for name in TASKS if not TASKS[name].is_vector and not TASKS[name].is_masked])
def test_without_labels_the_teachers_answers_are_all_that_is_learnt(task):
    teacher = tiny_encoder("bert", task)
    student = reduce_layers(teacher, (2, 4))
    student.model.eval()
    objective, _ = objective_of(teacher, student, DEFAULTS[task])
    objective.eval()
    _, bare = objective(**batch_of(teacher, labelled=False))
    _, whole = objective(**batch_of(teacher))
    assert float(bare["task"]) == 0 < float(whole["task"])
    assert float(bare["soft"]) == pytest.approx(float(whole["soft"]))


@pytest.mark.parametrize("task", TASKS)
def test_a_student_that_is_its_teacher_costs_only_the_task(task):
    teacher = tiny_encoder("bert", task)
    aligned = tuple((i, i) for i in range(1, 5))
    weights = LossWeights(task=0, attention=1, relation=1, logits=0 if TASKS[task].is_vector else 1)
    objective, _ = objective_of(teacher, teacher.copy(), weights, aligned)
    objective.eval()
    with torch.no_grad():
        loss, parts = objective(**batch_of(teacher))
    assert float(loss) == pytest.approx(0, abs=1e-4)
    assert {"attention", "relation", "hidden"} <= set(parts)


def test_the_sum_is_weighted():
    teacher = tiny_encoder()
    student = reduce_layers(teacher, (2, 4))
    weights = LossWeights(soft=3.0, task=0.25, hidden=7.0, relation=2.0, attention=0.5, logits=0.1)
    objective, _ = objective_of(teacher, student, weights)
    objective.eval()
    with torch.no_grad():
        loss, parts = objective(**batch_of(teacher))
    expected = sum(getattr(weights, name) * float(value) for name, value in parts.items())
    assert float(loss) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("weights", [{"soft": 1}, {"soft": 0, "logits": 1}])
def test_padding_is_no_answer_to_a_question(weights):
    """What a model says of padding is read neither of the student nor of the teacher."""
    teacher = tiny_encoder("bert", "question-answering")
    student = reduce_layers(teacher, (2, 4))
    objective, _ = objective_of(teacher, student, LossWeights(task=0, hidden=0, **weights))
    objective.eval()
    batch = batch_of(teacher)
    longer = {n: torch.nn.functional.pad(v, (0, 5)) for n, v in batch.items() if n not in ("labels", "rows")}
    with torch.no_grad():
        plain = objective(**batch)[0]
        padded = objective(**longer, labels=batch["labels"], rows=batch["rows"])[0]
    assert float(padded) == pytest.approx(float(plain), rel=1e-4)


NORM_FIRST = ("modernbert", "eurobert", "megatron-bert", "xlm-roberta-xl")
"""Families whose layers norm what attention reads, not what it gives."""


@pytest.mark.parametrize("family", THINNED)
def test_queries_keys_and_values_are_those_of_their_layer(family):
    """Against the model's own modules, called by hand on the states before the layer."""
    encoder, row = tiny_encoder(family, "embedding"), FAMILIES[family]
    rows = encoder.tokenize(sentences(3))
    collate = Collator("embedding", encoder.tokenizer.pad_token_id)
    batch = collate([(row, None, i, 0) for i, row in enumerate(rows)])
    del batch["rows"]
    with torch.no_grad():
        found = run_model(encoder.model, batch, Wanted(False, (2, 3), (3, 4)), "token-classification", None)
    for number in (3, 4):
        group = shared_group(number - 1, 4, encoder.shape.num_groups)
        layer = encoder.model.get_submodule(row.path_of_layer(group))
        states = found.states[number - 1]
        if family in NORM_FIRST:
            states = layer.get_submodule(row.layer.attention_norm)(states)
        paths = (row.layer.query, row.layer.key, row.layer.value)
        for at, path in enumerate(paths):
            with torch.no_grad():
                parts = layer.get_submodule(path)(states).chunk(paths.count(path), dim=-1)
            assert torch.allclose(found.layers[number][at], parts[paths[:at].count(path)], atol=1e-5)


def test_nothing_is_computed_that_is_not_read(monkeypatch):
    teacher = tiny_encoder()
    asked = []
    original = type(teacher.model).forward

    def forward(self, *given, output_hidden_states=None, **more):
        asked.append(bool(output_hidden_states))
        return original(self, *given, output_hidden_states=output_hidden_states, **more)

    monkeypatch.setattr(type(teacher.model), "forward", forward)
    objective, _ = objective_of(teacher, reduce_layers(teacher, (2, 4)), LossWeights(hidden=0))
    _, parts = objective(**batch_of(teacher))
    assert asked == [False, False] and set(parts) == {"soft", "task"}


def test_the_tasks_own_part_is_the_training_rooms_loss():
    teacher = tiny_encoder("bert", "token-classification")
    student = reduce_layers(teacher, (2, 4))
    objective, _ = objective_of(teacher, student, LossWeights(soft=0, hidden=0, task=1))
    objective.eval()
    batch = batch_of(teacher)
    labels = batch["labels"]
    with torch.no_grad():
        inputs = {n: v for n, v in batch.items() if n not in ("labels", "rows")}
        expected = task_loss("token-classification", {"logits": student.model(**inputs).logits}, labels)
        found, _ = objective(**batch)
    assert float(found) == pytest.approx(float(expected))


def test_a_teacher_of_whom_nothing_is_read_is_not_asked():
    teacher = tiny_encoder()
    student = reduce_layers(teacher, (2, 4))
    objective, live = objective_of(teacher, student, LossWeights(soft=0, hidden=0, task=1))
    live.module.register_forward_hook(lambda *given: pytest.fail("the teacher ran"))
    _, parts = objective(**batch_of(teacher))
    assert set(parts) == {"task"}
