"""The sizes that config.json states, against the weights' header: refused before a network of that size is built.

A configuration of a hundred bytes can ask for a billion layers or labels, and transformers would begin to make them.
Each size that it states is some weight's axis, each layer has weights of its own; of shared layers there are a thousand
at most.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from bertshrink.errors import UnsafeModel
from bertshrink.model.checkpoint_info import CheckpointInfo
from bertshrink.model.sizes.encoder_dims import EncoderDims

_POSITIONS = "max_position_embeddings"
_AXES = ("vocab_size", "hidden_size", "intermediate_size", "embedding_size", _POSITIONS)
_MORE_AXES = ("type_vocab_size", "num_labels")
_COUNTS = ("num_hidden_layers", "num_hidden_groups", "inner_group_num")
_MOST_SHARED = 1000


def check_sizes(facts: CheckpointInfo, header: Mapping[str, Mapping[str, Any]]) -> None:
    """Compare what config.json states with what is stored.

    Args:
        header: `read_header` of its weights.

    Raises:
        UnsafeModel: it states a size that no stored weight has.
    """
    longest = max((size for entry in header.values() for size in entry["shape"]), default=0)
    many = max(len(header), _MOST_SHARED if facts.anatomy.is_shared else 0)
    named = {facts.anatomy.field(name): name for name in (*_AXES, *_COUNTS)} | {name: name for name in _MORE_AXES}
    if not facts.anatomy.has_positions(facts.config):  # the longest input is no weight's axis
        del named[facts.anatomy.field("max_position_embeddings")]
    for key, name in named.items():
        value, most = facts.config.get(key), many if name in _COUNTS else longest
        if isinstance(value, int) and value > most:
            stored = f"{len(header)} weights, the longest axis of which is {longest}"
            raise UnsafeModel(
                f"`{key}` of config.json is {value}, but the stored weights are {stored}",
                where=str(facts.folder / "config.json"),
                hint="fix the value, or save the model again",
            )


def refuse_other_sizes(built: EncoderDims, facts: CheckpointInfo) -> None:
    """Refuse a configuration that leaves sizes out for which transformers has other defaults than its plan went by.

    Args:
        built: of the model that transformers made of it.

    Raises:
        UnsafeModel: it does.
    """
    names = [field.name for field in fields(built) if getattr(built, field.name) != getattr(facts.shape, field.name)]
    if names:
        key = facts.anatomy.field(
            {"num_groups": "num_hidden_groups", "max_positions": _POSITIONS}.get(names[0], names[0])
        )
        raise UnsafeModel(
            f"config.json leaves out `{key}`, which in the installed transformers is {getattr(built, names[0])}",
            where=str(facts.folder / "config.json"),
            hint="write it into the file, or save the model again",
        )
