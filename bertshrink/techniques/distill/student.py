"""A student of fewer layers: a stock model of the same family, its weights copied from the chosen layers.

Whatever is outside the list of layers (embeddings, pooler, head) is copied as it is. A layer-shared student
(ALBERT) keeps one copy of each group of weights that its layers use; unshared, each layer gets a group of its own.
"""

from __future__ import annotations

import copy
import re

from bertshrink.errors import CheckFailed
from bertshrink.model.encoder import Encoder
from bertshrink.model.families import shared_group
from bertshrink.techniques.distill.settings import kept_groups


def reduce_layers(encoder: Encoder, chosen: tuple[int, ...], *, unshare: bool = False) -> Encoder:
    """The encoder with only the layers `chosen`, counted from 1.

    Raises:
        CheckFailed: the copied weights do not fill the smaller model.
    """
    anatomy, shape = encoder.anatomy, encoder.shape
    if anatomy.is_shared:
        groups = kept_groups(chosen, shape.num_layers, shape.num_groups)
        if groups is None:
            if not unshare:
                raise CheckFailed(f"layers {chosen} cannot keep the sharing of {shape.num_groups} groups")
            groups = tuple(shared_group(layer - 1, shape.num_layers, shape.num_groups) for layer in chosen)
        sources = list(groups)
    else:
        sources = [layer - 1 for layer in chosen]

    config = copy.deepcopy(encoder.model.config)
    setattr(config, anatomy.field("num_hidden_layers"), len(chosen))
    if anatomy.is_shared:
        config.num_hidden_groups = len(sources)
    if anatomy.kinds_of_layers is not None:
        kinds = getattr(config, anatomy.kinds_of_layers)
        setattr(config, anatomy.kinds_of_layers, [kinds[layer - 1] for layer in chosen])
    student = type(encoder.model)(config).to(encoder.model.dtype)

    pattern = re.compile(rf"(^|\.)({re.escape(anatomy.layers)})\.(\d+)\.")
    given = encoder.model.state_dict()
    targets: dict[int, list[int]] = {}
    for target, source in enumerate(sources):
        targets.setdefault(source, []).append(target)
    weights = {}
    for name, tensor in given.items():
        match = pattern.search(name)
        if match is None:
            weights[name] = tensor
            continue
        for target in targets.get(int(match[3]), ()):
            weights[name[: match.start(3)] + str(target) + name[match.end(3) :]] = tensor
    missing, unexpected = student.load_state_dict(weights, strict=False)
    if missing or unexpected:
        raise CheckFailed(f"the smaller model's weights do not match: {(list(missing) + list(unexpected))[:3]}")
    student.tie_weights()
    return encoder.with_model(student)
