"""How much a head matters, by the Fisher information of a factor on its output: the mean squared gradient over texts.

With labels it is the gradient of the task's loss (arXiv:1905.10650 takes its absolute value). Without, it is the
curvature of the divergence from the model's own answers. The divergence itself has no gradient there, so that answers
are drawn from the model, and of vectors and scores a random direction is followed, whose mean square is the same
curvature.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from bertshrink.model.tasks import TASKS

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from bertshrink.data.texts import Split
    from bertshrink.meters.attention.head_hooks import Heads
    from bertshrink.model.encoder import Encoder
    from bertshrink.progress import Progress

FISHER_TEXTS = 256
_BATCH_TOKENS = 2048


def _sampled_classes(logits: Tensor, mask_BL: Tensor, dice: torch.Generator) -> Tensor:
    """-log p of an answer drawn for each text, or for each of its tokens; (B,)."""
    import torch

    log_p = logits.float().log_softmax(dim=-1)
    flat = log_p.detach().exp().flatten(0, -2)
    drawn = torch.multinomial(flat.cpu(), 1, generator=dice).to(flat.device).view(*log_p.shape[:-1], 1)
    costs = -log_p.gather(-1, drawn)[..., 0]
    return costs if costs.dim() == 1 else (costs * mask_BL).sum(dim=1)


def _of_choices(outputs: Mapping[str, Tensor], mask_BL: Tensor, dice: torch.Generator) -> Tensor:
    return _sampled_classes(outputs["logits"], mask_BL, dice)


def _of_ends(outputs: Mapping[str, Tensor], mask_BL: Tensor, dice: torch.Generator) -> Tensor:
    ends = [outputs[name].masked_fill(mask_BL == 0, -1e9) for name in ("start_logits", "end_logits")]
    return _sampled_classes(ends[0], mask_BL, dice) + _sampled_classes(ends[1], mask_BL, dice)


def _of_decisions(outputs: Mapping[str, Tensor], mask_BL: Tensor, dice: torch.Generator) -> Tensor:
    import torch

    logits_BC = outputs["logits"].float()
    drawn_BC = torch.bernoulli(logits_BC.detach().sigmoid().cpu(), generator=dice).to(logits_BC.device)
    cost_BC = torch.nn.functional.binary_cross_entropy_with_logits(logits_BC, drawn_BC, reduction="none")
    return cost_BC.sum(dim=1)


def _of_numbers(values_BC: Tensor, dice: torch.Generator) -> Tensor:
    import torch

    direction = torch.randn(values_BC.shape, generator=dice).to(values_BC.device)
    return (values_BC * direction).sum(dim=1)


def _of_scores(outputs: Mapping[str, Tensor], mask_BL: Tensor, dice: torch.Generator) -> Tensor:
    return _of_numbers(outputs["logits"].float(), dice)


def _of_vectors(outputs: Mapping[str, Tensor], mask_BL: Tensor, dice: torch.Generator) -> Tensor:
    import torch

    return _of_numbers(torch.nn.functional.normalize(outputs["sentence_embedding"].float(), dim=-1), dice)


_OWN_ANSWERS: dict[str, Callable[[Mapping[str, Tensor], Tensor, torch.Generator], Tensor]] = {
    "class": _of_choices,
    "classes": _of_decisions,
    "score": _of_scores,
    "tags": _of_choices,
    "answers": _of_ends,
    "pairs": _of_vectors,
    "masks": _of_choices,
}
"""What a task learns from -> what each text of a batch costs against an answer drawn from the model itself, (B,)."""


def importance(
    encoder: Encoder, heads: Heads, split: Split, max_length: int | None, seed: int, where: str, progress: Progress
) -> tuple[Any, str]:
    """The importance of each head.

    Args:
        split: texts, of which those with labels count where the task's loss needs some and there are any.
        max_length: cap on tokens per text; None: the model's own.
        where: the data's name, for messages.

    Returns:
        float64 (N, A), and what it was made of.
    """
    import torch

    from bertshrink.data.encoding import encode
    from bertshrink.model.batches import batch_by_length, tensors
    from bertshrink.training.losses import task_loss
    from bertshrink.training.rows.batching import Collator

    task, tokenizer = encoder.task, encoder.tokenizer
    limit = min(max_length or encoder.max_length, encoder.max_length)
    with_labels = TASKS[task].needs_labels and split.labels is not None and any(v is not None for v in split.labels)
    chosen = split
    if with_labels and split.labels is not None:
        chosen = split.take([i for i, label in enumerate(split.labels) if label is not None])
    chosen = chosen.first(FISHER_TEXTS)
    if with_labels:
        encoded = encode(task, tokenizer, chosen, limit, encoder.labels, where, encoder.prompt)
        rows, labels = encoded.rows, encoded.labels
    else:
        pairs = None if TASKS[task].is_vector else chosen.pairs
        rows = encoder.tokenize(chosen.texts, pairs, limit)
        labels = [None] * len(rows)
    collate = Collator(task, tokenizer.pad_token_id or 0, len(encoder.labels)) if with_labels else None
    session: Any = encoder.session()
    dice = torch.Generator().manual_seed(seed)
    device = encoder.model.device
    total = torch.zeros(heads.num_layers, heads.num_heads, dtype=torch.float64)
    trained = [one for one in encoder.model.parameters() if one.requires_grad]
    for one in trained:
        one.requires_grad_(False)
    try:
        with progress.task("weigh heads", len(rows), "texts") as shown:
            for batch in batch_by_length([len(row["input_ids"]) for row in rows], _BATCH_TOKENS):
                given = (
                    collate([(rows[i], labels[i], i, 0) for i in batch])
                    if collate
                    else tensors([rows[i] for i in batch])
                )
                given = {name: value.to(device) for name, value in given.items()}
                factors = torch.ones(heads.num_layers, len(batch), heads.num_heads, device=device, requires_grad=True)
                with heads.factors(factors):
                    values = session.plain({name: given[name] for name in session.inputs if name in given})
                outputs = dict(zip(session.outputs, values, strict=True))
                if with_labels:
                    loss = task_loss(task, outputs, given["labels"], encoder.activation) * len(batch)
                else:
                    mask = given["attention_mask"]
                    loss = _OWN_ANSWERS[TASKS[task].learns_from](outputs, mask, dice).sum()
                (gradient,) = torch.autograd.grad(loss, factors)
                total += (gradient.double() ** 2).sum(dim=1).cpu()
                shown.advance(len(batch))
    finally:
        for one in trained:
            one.requires_grad_(True)
    source = "the task's loss on labels" if with_labels else "answers drawn from the model itself"
    return (total / max(1, len(rows))).numpy(), f"{source}, {len(chosen)} texts of the training split"
