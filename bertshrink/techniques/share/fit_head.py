"""A head that ALBERT has, fitted to the answers of one that it has not.

ALBERT's head for whole texts is V tanh(W x + b) + v of the first token's state x. DistilBERT has ReLU in the place of
tanh and ELECTRA GELU. W and b start as theirs, small enough that tanh is nearly straight; V and v as the least squares
that fit; then Adam on the squared error of the answers, and least squares once more.

Letters: N texts, H hidden size, C outputs.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bertshrink import units
from bertshrink.model.conversion import Weights
from bertshrink.model.tasks import TASKS
from bertshrink.training.optim.adam import fit_adam

_KEPT_OUT = 10
"""One text in so many is not fitted to: it tells how well the head does."""
_STEPS = 300
_LEARNING_RATE = 3e-3
_SPREAD = 0.5
"""Standard deviation of what tanh is given at the start."""
_RIDGE = 1e-3
"""Of the features' mean variance."""


def fitted_head(
    given: dict[str, Weights], states_NH: Tensor, answers_NC: Tensor, task: str
) -> tuple[dict[str, Weights], str]:
    """ALBERT's head with the answers of another, and a sentence about how near it came.

    Args:
        given: the other head, `first` and `last`.
        states_NH: the first tokens' states that the new head will read.
        answers_NC: what the other head answered.
    """
    kept_out = torch.arange(len(states_NH)) % _KEPT_OUT == 0
    if len(states_NH) < 2 * _KEPT_OUT:
        kept_out[:] = False
    states, answers = states_NH[~kept_out], answers_NC[~kept_out]
    weight_HH, bias_H = given["first"]["weight"].clone(), given["first"]["bias"].clone()
    before_NH = states @ weight_HH.T + bias_H
    scale = _SPREAD / before_NH.std().clamp(min=1e-6)
    first = [scale * weight_HH, scale * bias_H]
    last = _least_squares(torch.tanh(scale * before_NH), answers)
    fitted = [tensor.detach().clone() for tensor in (*first, *last)]
    spread = answers.var().clamp(min=1e-12)

    def loss() -> Tensor:
        return (_answers(fitted, states) - answers).square().mean() / spread

    fit_adam(fitted, loss, _STEPS, _LEARNING_RATE, weight_decay=0.01)
    where = kept_out if bool(kept_out.any()) else ~kept_out
    weight_HH, bias_H = (tensor.detach() for tensor in fitted[:2])
    last_CH, last_C = _least_squares(torch.tanh(states @ weight_HH.T + bias_H), answers)
    mine = _answers([weight_HH, bias_H, last_CH, last_C], states_NH[where])
    head = {"first": {"weight": weight_HH, "bias": bias_H}, "last": {"weight": last_CH, "bias": last_C}}
    kind = "texts held out of the fit" if bool(kept_out.any()) else "texts it was fitted to"
    return head, f"{_likeness(mine, answers_NC[where], task)} on {int(where.sum())} {kind}"


def _answers(head: list[Tensor], states_NH: Tensor) -> Tensor:
    first, first_bias, last, last_bias = head
    answers: Tensor = torch.tanh(states_NH @ first.T + first_bias) @ last.T + last_bias
    return answers


def _least_squares(features_NH: Tensor, answers_NC: Tensor) -> tuple[Tensor, Tensor]:
    """Weight (C, H) and bias (C,) of the ridge regression of the answers on the features."""
    mean_H, mean_C = features_NH.mean(0), answers_NC.mean(0)
    there, wanted = (features_NH - mean_H).double(), (answers_NC - mean_C).double()
    gram = there.T @ there / len(there)
    gram += _RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=torch.float64)
    weight_HC = torch.linalg.solve(gram, there.T @ wanted / len(there)).to(features_NH.dtype)
    return weight_HC.T.contiguous(), mean_C - mean_H @ weight_HC


def _likeness(mine_NC: Tensor, theirs_NC: Tensor, task: str) -> str:
    if TASKS[task].is_score:
        left = (mine_NC - theirs_NC).square().mean() / theirs_NC.var(unbiased=False).clamp(min=1e-12)
        return f"it explains {units.format(float(1 - left), 'fraction')} of their variance"
    is_any = TASKS[task].learns_from == "classes"
    same = (mine_NC > 0) == (theirs_NC > 0) if is_any else mine_NC.argmax(1) == theirs_NC.argmax(1)
    return f"{units.format(float(same.float().mean()), 'fraction')} of them are the same"
