"""How much each head and neuron matters, on texts.

    fisher      the mean over texts of the squared gradient of a text's loss by a factor on the unit: the diagonal of
                the Fisher information, which says how fast the answers change when it is turned down
                (arXiv:2204.09656, section 4), by labels or without them (see `training.divergence_probes`)
    magnitude   the mean square of what the unit adds to the layer's output
    random      numbers

B batch, L length, H hidden size
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from bertshrink.engines.torch_session import SENTENCE, of_tokens, pool
from bertshrink.model.batches import batch_by_length
from bertshrink.model.tasks import TASKS
from bertshrink.model.units import Units, layers_of, num_attention_units, ones, scaled
from bertshrink.training.divergence_probes import probe
from bertshrink.training.losses import each_loss
from bertshrink.training.rows.batching import Collator, TokenizedRows

if TYPE_CHECKING:
    from bertshrink.model.encoder import Encoder
    from bertshrink.progress import Progress

_TOKENS_PER_BATCH, _ROWS_PER_BATCH = 2048, 32


def importance(
    encoder: Encoder, rows: TokenizedRows, method: str, *, labels: bool, seed: int, progress: Progress
) -> list[Units]:
    """The score of each unit of each layer, in the order of `units.layers_of`.

    Args:
        rows: what is read; with labels where `labels` is set.
        method: as the setting.
    """
    generator = torch.Generator().manual_seed(seed)
    if method == "random":
        return [one.map(lambda scores: torch.rand(scores.shape, generator=generator)) for one in ones(encoder)]
    batches = batch_by_length(rows.lengths, _TOKENS_PER_BATCH, _ROWS_PER_BATCH)
    total = [one.map(torch.zeros_like) for one in ones(encoder)]
    with progress.task("importance of heads and neurons", len(batches), "batches") as task:
        for batch in _batches(encoder, rows, batches):
            found = (
                _squared_gradients(encoder, batch, generator, labels=labels)
                if method == "fisher"
                else _squared_outputs(encoder, batch)
            )
            total = [
                Units(one.heads + more.heads, one.neurons + more.neurons)
                for one, more in zip(total, found, strict=True)
            ]
            task.advance()
    return [one.map(lambda scores: scores / len(rows)) for one in total]


def _batches(encoder: Encoder, rows: TokenizedRows, batches: list[list[int]]) -> Iterator[dict[str, Tensor]]:
    collate = Collator(encoder.task, encoder.tokenizer.pad_token_id or 0, len(encoder.labels))
    for batch in batches:
        made = collate([rows[at] for at in batch])
        del made["rows"]
        yield made


def _squared_gradients(
    encoder: Encoder, batch: dict[str, Tensor], generator: torch.Generator, *, labels: bool
) -> list[Units]:
    """The sum over the texts of a batch of the squared gradients of each text's own loss."""
    given = {name: values for name, values in batch.items() if name != "labels"}
    factors = [one.map(lambda ones_BU: ones_BU.requires_grad_()) for one in ones(encoder, len(batch["input_ids"]))]
    with scaled(encoder, factors):
        out: Any = encoder.model(**given)
    task, mask_BL = encoder.task, given["attention_mask"]
    if TASKS[task].is_vector:
        assert encoder.pooling is not None
        outputs = {SENTENCE: pool(of_tokens(out).float(), mask_BL, *encoder.pooling.spec, layers=encoder.layers or ())}
    else:
        outputs = {name: out[name] for name in TASKS[task].outputs}
    if labels:
        loss = each_loss(task, outputs, batch["labels"], encoder.activation)
    else:
        loss = probe(task, outputs, mask_BL, generator, encoder.activation)
    flat = [one for factor in factors for one in (factor.heads, factor.neurons)]
    squares = [gradient.square().sum(dim=0) for gradient in torch.autograd.grad(loss, flat)]
    return [Units(heads, neurons) for heads, neurons in zip(squares[::2], squares[1::2], strict=True)]


@torch.no_grad()
def _squared_outputs(encoder: Encoder, batch: dict[str, Tensor]) -> list[Units]:
    """The sum over the tokens of a batch of the squared length of what each unit adds."""
    names, num_units = encoder.anatomy.layer, num_attention_units(encoder.shape)
    assert names is not None
    is_token_BL = batch["attention_mask"].bool()
    sums: dict[tuple[int, str], Tensor] = {}

    def keep(number: int, path: str, num_parts: int) -> Callable[..., None]:
        def add(module: Any, given: tuple[Tensor, ...]) -> None:
            states: Any = given[0][is_token_BL]
            parts_NUD = states.unflatten(1, (num_parts, -1))
            weight_HUD = module.weight.unflatten(1, (num_parts, -1))
            gram_UDD = torch.einsum("hud,hue->ude", weight_HUD, weight_HUD)
            square_U = torch.einsum("nud,ude,nue->u", parts_NUD, gram_UDD, parts_NUD)
            sums[number, path] = sums.get((number, path), torch.zeros(num_parts)) + square_U

        return add

    handles = []
    for number, layer in enumerate(layers_of(encoder)):
        for path, parts in ((names.mix, num_units), (names.narrow, encoder.shape.intermediate_size)):
            handles.append(layer.get_submodule(path).register_forward_pre_hook(keep(number, path, parts)))
    try:
        encoder.model(**{name: values for name, values in batch.items() if name != "labels"})
    finally:
        for handle in handles:
            handle.remove()
    return [Units(sums[at, names.mix], sums[at, names.narrow]) for at in range(encoder.shape.num_groups)]
