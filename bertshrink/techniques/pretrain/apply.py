"""A tokenizer and an encoder from a stream of documents."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor, nn

from bertshrink import units
from bertshrink.data.encoding import IGNORED
from bertshrink.data.formats.corpus import Corpus
from bertshrink.errors import CheckFailed
from bertshrink.model.encoder import Encoder
from bertshrink.model.families import anatomy_of
from bertshrink.techniques.base import Workbench
from bertshrink.techniques.pretrain.settings import (
    EPOCHS,
    LEARNING_RATE,
    MAX_LENGTH,
    PretrainSettings,
)
from bertshrink.training.loop import TrainingJob, train
from bertshrink.training.losses import cross_entropy
from bertshrink.training.rows.batching import Collator
from bertshrink.training.rows.masking import TokenMasker
from bertshrink.training.rows.pretraining_rows import Manner, PackedRows, TokenStore

_MANNERS: dict[str | None, Manner] = {None: "full-sentences", "nsp": "next-sentence", "sop": "sentence-order"}


def pretrain(settings: PretrainSettings, corpus: Corpus, bench: Workbench) -> Encoder:
    """Train a tokenizer and an encoder.

    Raises:
        CheckFailed: training diverged.
        UserError: the corpus holds no text.
    """
    tokenizer = train_tokenizer(settings, corpus)
    kind = settings.tokenizer or settings.manner.tokenizer
    bench.note(f"a vocabulary of {len(tokenizer)} tokens was trained ({kind})")
    torch.manual_seed(bench.seed)
    model: Any = make_model(settings, len(tokenizer), tokenizer.pad_token_id or 0)
    store = TokenStore.of(corpus, tokenizer, (bench.cache or bench.work) / "tokens", bench.progress)
    rows = PackedRows(store, tokenizer, _MANNERS[settings.second_objective], settings.tokens_per_row, bench.seed)
    masker = TokenMasker(tokenizer, settings.mask_share, whole_word=settings.whole_word, seed=bench.seed)
    epochs, rate = settings.epochs or EPOCHS, settings.learning_rate or LEARNING_RATE
    bench.note(
        f"trained {units.counted(epochs, 'epoch')} of {len(rows)} rows of up to {settings.tokens_per_row} tokens "
        f"({rows.manner}) from {store.num_tokens} tokens of text, learning rate {rate:g}"
    )
    choose = bench.choose

    def encoder() -> Encoder:
        return Encoder(as_masked_model(model), tokenizer, "mlm", settings.family, MAX_LENGTH)

    outcome = train(
        TrainingJob(
            name=settings.name,
            objective=PretrainingTask(model, settings.second_objective),
            rows=rows,
            collate=Collator("mlm", tokenizer.pad_token_id or 0, masker=masker),
            epochs=epochs,
            learning_rate=rate,
            dropout=settings.dropout is not False,
            judge=None if choose is None else lambda: choose(encoder()),
        ),
        settings,
        work=bench.work,
        seed=bench.seed,
        progress=bench.progress,
    )
    bench.record(outcome)
    return encoder()


def train_tokenizer(settings: PretrainSettings, corpus: Corpus) -> transformers.PreTrainedTokenizerFast:
    """A tokenizer of `vocab_size` tokens from the documents."""

    def lines() -> Iterator[list[str]]:
        yield from corpus.documents()

    kind, style = settings.tokenizer or settings.manner.tokenizer, settings.row.style
    special = {f"{role}_token": name for role, name in style.special}
    names = list(special.values())
    trainer: Any
    if kind == "byte-bpe":
        tokenizer = Tokenizer(models.BPE(unk_token=special["unk_token"]))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=settings.vocab_size, special_tokens=names, initial_alphabet=alphabet, show_progress=False
        )
    else:
        tokenizer = Tokenizer(models.WordPiece(unk_token=special["unk_token"]))
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=settings.lowercase)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.decoder = decoders.WordPiece()
        # The trainer numbers these pieces as it meets them, in an order that differs from run to run, and breaks ties
        # by number: named beforehand they make the vocabulary a function of the text.
        pieces = [f"##{letter}" for letter in _letters_within(lines(), tokenizer)]
        trainer = trainers.WordPieceTrainer(
            vocab_size=settings.vocab_size, special_tokens=names + pieces, show_progress=False
        )
    tokenizer.train_from_iterator(lines(), trainer)
    if kind == "wordpiece":
        tokenizer.model = models.WordPiece(tokenizer.get_vocab(with_added_tokens=True), unk_token=special["unk_token"])
        tokenizer = _without_added_tokens(tokenizer)
        tokenizer.add_special_tokens(names)
    cls, sep = special["cls_token"], special["sep_token"]
    second = style.second_type
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{cls} $A {sep}",
        pair=f"{cls} $A {' '.join([sep] * style.num_separators)} $B:{second} {sep}:{second}",
        special_tokens=[(name, tokenizer.token_to_id(name)) for name in (cls, sep)],
    )
    inputs = ["input_ids", "attention_mask"]
    if settings.row.gives_token_types:
        inputs.insert(1, "token_type_ids")
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_input_names=inputs, model_max_length=MAX_LENGTH, **special
    )


def _letters_within(documents: Iterator[list[str]], tokenizer: Tokenizer) -> list[str]:
    """The letters that can be in a word behind its first, sorted."""
    letters: set[str] = set()
    for lines in documents:
        letters.update(*lines)
    read = {letter for character in letters for letter in tokenizer.normalizer.normalize_str(character)}
    return sorted(
        letter
        for letter in read
        if len(tokenizer.pre_tokenizer.pre_tokenize_str(tokenizer.normalizer.normalize_str(f"a{letter}"))) == 1
        and len(tokenizer.normalizer.normalize_str(f"a{letter}")) > 1
        and not letter.isspace()
    )


def _without_added_tokens(tokenizer: Tokenizer) -> Tokenizer:
    """The same steps and model, with no token that is read as a whole."""
    plain = Tokenizer(tokenizer.model)
    plain.normalizer, plain.pre_tokenizer = tokenizer.normalizer, tokenizer.pre_tokenizer
    plain.decoder = tokenizer.decoder
    return plain


def make_model(settings: PretrainSettings, vocab_size: int, pad_id: int) -> Any:
    """A stock model with random weights, with a head for pairs of segments where the objective has one."""
    sizes = {
        "num_hidden_layers": settings.layers,
        "hidden_size": settings.hidden_size,
        "num_attention_heads": settings.heads,
        "intermediate_size": settings.intermediate_size or 4 * settings.hidden_size,
    }
    more: dict[str, Any] = {settings.row.field(name): value for name, value in sizes.items()}
    more |= {"vocab_size": vocab_size, "max_position_embeddings": settings.max_positions, "pad_token_id": pad_id}
    if settings.row.embedding.projection is not None:
        more["embedding_size"] = settings.embedding_size
    config: Any = transformers.AutoConfig.for_model(settings.family, **more, **settings.manner.config)
    auto = transformers.AutoModelForPreTraining if settings.second_objective else transformers.AutoModelForMaskedLM
    return auto.from_config(config)


def as_masked_model(model: Any) -> Any:
    """The masked language model of a model that has a head for pairs of segments as well.

    Raises:
        CheckFailed: its weights do not fill it.
    """
    made: Any = transformers.AutoModelForMaskedLM.from_config(model.config)
    missing = made.load_state_dict(model.state_dict(), strict=False).missing_keys
    made.tie_weights()
    if missing:
        raise CheckFailed(f"the masked language model lacks weights: {missing[:3]}")
    made.config.architectures = [type(made).__name__]
    return made.eval()


class PretrainingTask(nn.Module):
    """A model with the losses of pre-training.

    Args:
        student: stock transformers; what is trained.
        second: what is learnt of pairs of segments: `nsp`, `sop` or nothing.
    """

    def __init__(self, student: Any, second: str | None) -> None:
        super().__init__()
        self.student = student
        self.second = second

    def forward(self, **batch: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Sum of the losses (scalar) and each by name; `batch` as `training.rows.batching.Collator` makes it."""
        labels, pairs = batch.pop("labels"), batch.pop("pairs", None)
        del batch["rows"]
        row = anatomy_of(self.student.config.model_type)
        base = getattr(self.student, row.base)
        out = base(**batch)
        chosen = labels != IGNORED
        parts = {"mlm": cross_entropy(masked_logits(self.student, out.last_hidden_state[chosen]), labels[chosen])}
        if self.second is not None and pairs is not None:
            assert row.pretraining is not None
            head = self.student.get_submodule(row.pretraining.pair_head)
            parts[self.second] = cross_entropy(head(out.pooler_output), pairs)
        return torch.stack(list(parts.values())).sum(), {name: value.detach() for name, value in parts.items()}


def masked_logits(model: Any, hidden_NH: Tensor) -> Tensor:
    """(N, V) logits of the masked language model's head for the given tokens only: over all tokens they would cost as
    much as several layers.
    """
    states = hidden_NH
    for step in anatomy_of(model.config.model_type).masked_head.steps:
        states = model.get_submodule(step)(states)
    return states
