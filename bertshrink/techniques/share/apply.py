"""How an encoder's layers come to share weights: take it apart, choose each group's, put it together as an ALBERT."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from bertshrink.data.calibration import calibration_rows
from bertshrink.model.batches import Row, batch_by_length, tensors
from bertshrink.model.conversion import Weights, assemble, decompose, layer_by_role, prove_tokenizer
from bertshrink.model.encoder import Encoder
from bertshrink.model.families import shared_group
from bertshrink.model.family import ModelFamily
from bertshrink.model.sizes.parameter_count import facts_of, sharing_family, target_family
from bertshrink.model.sizes.size_estimate import savings_summary
from bertshrink.techniques.share.fit_head import fitted_head
from bertshrink.techniques.share.fitting import GroupBatch, group_weights
from bertshrink.techniques.share.settings import check_groups

if TYPE_CHECKING:
    from bertshrink.techniques.base import Workbench
    from bertshrink.techniques.share.settings import ShareSettings

_TOKENS = 60_000
"""Calibration tokens, at most."""
_STATES = 2e9
"""Bytes that the states of one group may take; where they would take more, fewer tokens are looked at."""
_BATCH = 1024
"""Tokens that a step of fitting looks at, padding included."""
_LEARNING_RATE = 5e-4


def share(encoder: Encoder, settings: ShareSettings, bench: Workbench) -> Encoder:
    """The encoder as a stock ALBERT whose layers share weights in groups; itself where nothing more is shared.

    Raises:
        CheckFailed: the result is not the model that was meant.
        UserError: a number of groups that the layers do not allow; calibration texts without a token.
    """
    shape = encoder.shape
    check_groups(settings.groups, shape.num_layers, shape.num_groups)
    if settings.groups == shape.num_groups:
        bench.note(
            f"{settings.groups} groups of {shape.num_layers} layers are what the model already has: nothing changed"
        )
        return encoder
    members = _groups(shape.num_layers, settings.groups)
    longest = max(members.count(group) for group in members)
    tokens = min(_TOKENS, int(_STATES / (4 * shape.hidden_size * (longest + 2))))
    rows, note = calibration_rows(
        encoder, bench.texts, settings.calibration_examples, tokens, bench.max_length, bench.seed
    )
    bench.note(note)
    parts = decompose(encoder)
    parts = replace(parts, layers=[parts.layers[i] for i in _groups(shape.num_layers, shape.num_groups)])
    family = sharing_family(encoder.anatomy.family)
    layers, states, order = _shared_layers(assemble(encoder, parts, family), rows, settings, bench)
    parts = replace(parts, layers=layers)
    if target_family(encoder.anatomy.family, encoder.task) != family:
        logits = encoder.predict([rows[i] for i in order])
        head, said = fitted_head(
            parts.head, states, torch.from_numpy(np.stack([one["logits"] for one in logits])), encoder.task
        )
        parts = replace(parts, head=head)
        bench.note(f"approximate: ALBERT has no equivalent head, so one was fitted to the model's outputs; {said}")
    shared = assemble(encoder, parts, family)
    prove_tokenizer(encoder, shared, bench.texts.train.texts[:64] if bench.texts is not None else ())
    bench.note(
        f"{settings.groups} group{'s' if settings.groups != 1 else ''} of weights for {shape.num_layers} layers: "
        + savings_summary(facts_of(encoder), facts_of(shared))
    )
    return shared


def _groups(num_layers: int, num_groups: int) -> list[int]:
    return [shared_group(i, num_layers, num_groups) for i in range(num_layers)]


def _shared_layers(
    apart: Encoder, rows: list[Row], settings: ShareSettings, bench: Workbench
) -> tuple[list[Weights], Tensor, list[int]]:
    """Each group's weights, group after group, so that each can make good what those before it lost.

    Args:
        apart: a model of a layer-shared family whose layers have weights of their own.

    Returns:
        the weights; (N, H) what the last layer gives for each row's first token; the rows' numbers, in that order.
    """
    base: Any = apart.model.base_model
    row, depth = apart.anatomy, apart.shape.num_layers
    members = _groups(depth, settings.groups)
    order = batch_by_length([len(row["input_ids"]) for row in rows], _BATCH)
    batches = [_embedded(base, row, [rows[i] for i in batch]) for batch in order]
    shared: list[Weights] = []
    errors = []
    total = settings.groups * settings.steps if settings.method == "fitted" else settings.groups
    with bench.progress.task("share", total, "steps") as task:
        for group in range(settings.groups):
            layers = [base.get_submodule(row.path_of_layer(i)) for i in range(depth) if members[i] == group]
            layer, batches, start, end = group_weights(
                layers, batches, settings.method, settings.steps, _LEARNING_RATE, task
            )
            shared.append({name: tensor.detach() for name, tensor in layer_by_role(row, layer.state_dict()).items()})
            errors.append(f"{start:.4f}" if start == end else f"{start:.4f} -> {end:.4f}")
    bench.note(f"error of each group's last states, {settings.method}: {', '.join(errors)}")
    first = torch.cat([batch.given_BLH[:, 0] for batch in batches])
    return shared, first, [i for batch in order for i in batch]


@torch.no_grad()
def _embedded(base: Any, row: ModelFamily, rows: list[Row]) -> GroupBatch:
    """Rows as what the first layer reads."""
    block = tensors(rows)
    embedded = base.embeddings(block["input_ids"], token_type_ids=block.get("token_type_ids"))
    states = base.get_submodule(row.embedding.projection)(embedded)
    return GroupBatch(states, states, block["attention_mask"].bool())
