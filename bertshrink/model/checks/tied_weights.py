"""The head on masked tokens multiplies with the table of words: where config.json says so, the weights must, too.

transformers takes both as they are stored where they differ, and says nothing of it in the configuration. Whatever
makes another model of it, sizes included, would go by that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bertshrink.errors import UnsafeModel
from bertshrink.files.shards import weight_file
from bertshrink.model.tasks import TASKS

if TYPE_CHECKING:
    from bertshrink.model.checkpoint_info import CheckpointInfo


def refuse_other_decoder(model: Any, facts: CheckpointInfo) -> None:
    """Refuse a head that config.json ties to the table of words, and whose stored weights are others.

    Args:
        model: of the facts, loaded.

    Raises:
        UnsafeModel: they are.
    """
    if not TASKS[facts.task].has_masked_head or not model.config.tie_word_embeddings:
        return
    head = facts.anatomy.masked_head
    decoder, table = model.get_submodule(head.decoder), model.get_input_embeddings().weight
    pairs = {"weight": (decoder.weight, table, "the table of words")}
    if head.bias is not None and decoder.bias is not None:
        pairs["bias"] = (decoder.bias, model.get_parameter(head.bias), f"`{head.bias}`")
    for part, (stored, wanted, name) in pairs.items():
        if stored is not None and stored is not wanted and not bool((stored == wanted).all()):
            raise UnsafeModel(
                f"the stored weight `{head.decoder}.{part}` is not {name}, to which config.json ties it",
                where=str(weight_file(facts.folder)),
                hint='write `"tie_word_embeddings": false` into config.json where both are right; else delete one, and '
                "save the file again with safetensors",
            )
