"""How much a head matters, by the Fisher information of a factor on its output: the mean squared gradient over texts.

With labels it is the gradient of the task's loss (arXiv:1905.10650 takes its absolute value), without that of
random directions of the outputs (see `training.divergence_probes`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bertshrink.model.tasks import TASKS

if TYPE_CHECKING:
    from bertshrink.data.texts import Split
    from bertshrink.meters.attention.head_hooks import Heads
    from bertshrink.model.encoder import Encoder
    from bertshrink.progress import Progress

FISHER_TEXTS = 256
_BATCH_TOKENS = 2048


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
    from bertshrink.training.divergence_probes import probe
    from bertshrink.training.losses import each_loss
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
                    loss = each_loss(task, outputs, given["labels"], encoder.activation)
                else:
                    loss = probe(task, outputs, given["attention_mask"], dice, encoder.activation)
                (gradient,) = torch.autograd.grad(loss, factors)
                total += (gradient.double() ** 2).sum(dim=1).cpu()
                shown.advance(len(batch))
    finally:
        for one in trained:
            one.requires_grad_(True)
    source = "the task's loss on labels" if with_labels else "the divergence from the model's own answers"
    return (total / max(1, len(rows))).numpy(), f"{source}, {len(chosen)} texts of the training split"
