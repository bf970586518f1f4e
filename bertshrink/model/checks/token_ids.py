"""What a tokenizer gives and what a model's tables hold: fitted where one reading is possible, else refused.

small letters   sentence-transformers' `do_lower_case`: a step in front of the tokenizer's own, written with it
ids             a token added without a row of its own in the table of words is refused by name
types           a model with one type of token reads the second text of a pair as the first
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bertshrink.errors import UnsafeModel, listed

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from bertshrink.model.checkpoint_info import CheckpointInfo

_OF_A_FAMILY = (
    *("vocab", "vocab_file", "merges", "merges_file", "tokenizer_file", "backend", "do_lower_case"),
    "tokenizer_class",
)
"""What a family's class builds its steps from, and its name."""


def in_small_letters(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """A fast tokenizer that reads everything in small letters, by the same step as sentence-transformers puts there.

    It is of no family's class: those of transformers 5 build their steps again from a few settings at every load, and
    the step in front would be gone from the copy that is saved.

    Raises:
        UnsafeModel: it is a slow one, which no step can be put in front of.
    """
    from tokenizers import normalizers
    from transformers import PreTrainedTokenizerFast

    if not tokenizer.is_fast:
        raise UnsafeModel(
            f"texts are lower-cased (`do_lower_case`), and the tokenizer is a slow one, `{type(tokenizer).__name__}`",
            where=tokenizer.name_or_path,
            hint="save the model with a fast tokenizer, one with a tokenizer.json",
        )
    backend: Any = tokenizer.backend_tokenizer
    own: Any = backend.normalizer
    steps = list(backend.normalizer) if isinstance(own, normalizers.Sequence) else [own] if own is not None else []
    if any(isinstance(step, normalizers.Lowercase) for step in steps):
        return tokenizer
    backend.normalizer = normalizers.Sequence([normalizers.Lowercase(), *steps])
    settings = {name: value for name, value in tokenizer.init_kwargs.items() if name not in _OF_A_FAMILY}
    named = {"model_input_names": tokenizer.model_input_names, "padding_side": tokenizer.padding_side}
    return PreTrainedTokenizerFast(tokenizer_object=backend, **settings | named)


def fit_to_tables(tokenizer: PreTrainedTokenizerBase, facts: CheckpointInfo) -> tuple[str, ...]:
    """Prove that a model has a row for whatever its tokenizer gives.

    Args:
        tokenizer: one that numbers types of tokens that the model does not have gives them no more.

    Returns:
        notes on what is read otherwise than the tokenizer says.

    Raises:
        UnsafeModel: a token has no row.
    """
    rows = facts.shape.vocab_size
    without = sorted((number, token) for token, number in tokenizer.get_vocab().items() if number >= rows)
    if without:
        shown = listed([f"`{token}` ({number})" for number, token in without])
        raise UnsafeModel(
            f"the tokenizer produces ids beyond the model's {rows} embedding rows: {shown}",
            where=str(facts.folder),
            hint="where they were added, load the model with transformers, call `model.resize_token_embeddings("
            "len(tokenizer))` and train it with them; else take them out of the tokenizer's files",
        )
    return _fit_types(tokenizer, facts)


def _fit_types(tokenizer: PreTrainedTokenizerBase, facts: CheckpointInfo) -> tuple[str, ...]:
    name, types = "token_type_ids", facts.config.get("type_vocab_size", 2)
    if name not in tokenizer.model_input_names or not facts.anatomy.has_token_types or not isinstance(types, int):
        return ()
    given = tokenizer("a", "a").get(name)
    if not given or max(given) < types:
        return ()
    if types > 1:
        raise UnsafeModel(
            f"the tokenizer gives tokens of type {max(given)}, and the model has {types} types",
            where=str(facts.folder),
            hint="put the model's own tokenizer beside it",
        )
    tokenizer.model_input_names = [other for other in tokenizer.model_input_names if other != name]
    return (
        "the tokenizer marks the second text of a pair as token type 1, but the model has only one type: all "
        "tokens are read as type 0, and the saved tokenizer returns no types",
    )
