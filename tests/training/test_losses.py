"""The tasks' own losses by hand, with rows that have no label and batches that have none at all."""

import math

import pytest
import torch

from bertshrink.data.encoding import IGNORED
from bertshrink.training.losses import task_loss

NAN = math.nan


def logits(*values):
    return {"logits": torch.tensor(values, requires_grad=True)}


def softplus(x):
    return math.log1p(math.exp(x))


def test_classification_is_the_mean_over_labelled_rows():
    found = task_loss(
        "classification", logits([0.0, 0.0], [math.log(3), 0.0], [5.0, 1.0]), torch.tensor([0, 1, IGNORED])
    )
    assert float(found.detach()) == pytest.approx((math.log(2) + math.log(4)) / 2)


def test_multi_label_is_the_mean_over_rows_and_classes():
    found = task_loss("multi-label", logits([0.0, 2.0], [9.0, 9.0]), torch.tensor([[1.0, 0.0], [NAN, NAN]]))
    assert float(found.detach()) == pytest.approx((math.log(2) + softplus(2.0)) / 2)


def test_regression_is_the_squared_error():
    found = task_loss("regression", logits([1.0], [2.0], [7.0]), torch.tensor([0.0, 4.0, NAN]))
    assert float(found.detach()) == pytest.approx((1 + 4) / 2)


def test_tags_are_the_mean_over_labelled_tokens():
    outputs = logits([[0.0, 0.0], [math.log(3), 0.0], [7.0, 0.0]])
    found = task_loss("token-classification", outputs, torch.tensor([[1, 0, IGNORED]]))
    assert float(found.detach()) == pytest.approx((math.log(2) + math.log(4 / 3)) / 2)


def test_answers_are_the_mean_of_start_and_end():
    outputs = {"start_logits": torch.tensor([[0.0, 0.0]]), "end_logits": torch.tensor([[0.0, math.log(3)]])}
    assert float(task_loss("question-answering", outputs, torch.tensor([[0, 1]]))) == pytest.approx(
        (math.log(2) + math.log(4 / 3)) / 2
    )


@pytest.mark.parametrize(
    ("task", "outputs", "labels"),
    [
        ("classification", logits([1.0, 2.0]), torch.tensor([IGNORED])),
        ("multi-label", logits([1.0, 2.0]), torch.tensor([[NAN, NAN]])),
        ("regression", logits([1.0]), torch.tensor([NAN])),
        ("token-classification", logits([[1.0, 2.0]]), torch.tensor([[IGNORED]])),
        ("mlm", logits([[1.0, 2.0]]), torch.tensor([[IGNORED]])),
    ],
)
def test_nothing_labelled_costs_nothing_and_has_a_gradient(task, outputs, labels):
    found = task_loss(task, outputs, labels)
    found.backward()
    assert float(found.detach()) == 0
    assert torch.equal(outputs["logits"].grad, torch.zeros_like(outputs["logits"]))


def test_low_precision_is_summed_in_float32():
    outputs = {"logits": torch.full((4096, 2), 0.1, dtype=torch.bfloat16)}
    assert float(task_loss("classification", outputs, torch.zeros(4096, dtype=torch.long))) == pytest.approx(
        math.log(2), rel=1e-4
    )
