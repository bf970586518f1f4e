"""Pre-training: an encoder and its tokenizer from running text alone, the first step of the whole road
pretrain -> finetune -> distill.

    bert     masked tokens + whether the second segment follows the first     arXiv:1810.04805
    roberta  masked tokens, full sentences, byte-level BPE                    arXiv:1907.11692
    albert   masked tokens + whether two segments are in order; shared layers arXiv:1909.11942

The masked tokens' logits are computed where a token is masked and nowhere else. What is kept is the masked language
model; the head of the second objective is dropped. The text is streamed (`training.rows.packing`).

Left out: whole corpora's rates and steps (a million, batches of 256 and more): the defaults are for small encoders on
some megabytes of text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bertshrink.errors import UserError
from bertshrink.techniques.base import Workbench

if TYPE_CHECKING:
    from bertshrink.model.encoder import Encoder
    from bertshrink.model.model_ref import Model
from bertshrink.techniques.pretrain.settings import PretrainSettings


class Pretrain(PretrainSettings):
    """Pre-train an encoder from scratch on running text, with its tokenizer."""

    def __call__(self, model: Model | None, bench: Workbench) -> Encoder:
        """Train tokenizer and encoder."""
        from bertshrink.techniques.pretrain.apply import pretrain

        if bench.texts is None or bench.texts.corpus is None:
            raise UserError(
                "`pretrain` needs running text, and the data is not",
                hint="give a .txt file or a folder with train.txt: lines, with blank lines between documents",
            )
        return pretrain(self, bench.texts.corpus, bench)
