"""What a tokenizer gives and what a model's tables hold: fitted where one reading is possible, else refused.

small letters   sentence-transformers' `do_lower_case`: a step in front of the tokenizer's own, written with it
padding         where no token pads, or one without a row in the table of words, another special token does: the
                attention mask leaves it out, whichever it is
masks           a mask token without a row is taken away where the task does not mask
ids             any other token without a row is refused by name
types           a model with one type of token reads the second text of a pair as the first; one with two gets them,
                where it is only its tokenizer's class that no longer returns them
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from bertshrink.errors import UnsafeModel, listed
from bertshrink.files.json_files import read_object
from bertshrink.model.checks.tokenizer import refusing
from bertshrink.model.tasks import TASKS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from bertshrink.model.checkpoint_info import CheckpointInfo

_TYPES = "token_type_ids"
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
    return _of_no_class(tokenizer, backend)


def _of_no_class(
    tokenizer: PreTrainedTokenizerBase, backend: Any, without: Collection[str] = ()
) -> PreTrainedTokenizerBase:
    """A fast tokenizer of another backend, with the settings of the old one, special tokens `without` left out."""
    from transformers import PreTrainedTokenizerFast

    settings = {name: value for name, value in tokenizer.init_kwargs.items() if name not in _OF_A_FAMILY}
    settings |= {name: token for name, token in tokenizer.special_tokens_map.items() if isinstance(token, str)}
    settings = {name: value for name, value in settings.items() if str(value) not in without}
    if without:
        settings.pop("added_tokens_decoder", None)  # the backend has them
    named = {"model_input_names": tokenizer.model_input_names, "padding_side": tokenizer.padding_side}
    return PreTrainedTokenizerFast(tokenizer_object=backend, **settings | named)


def fit_to_tables(
    tokenizer: PreTrainedTokenizerBase, facts: CheckpointInfo
) -> tuple[PreTrainedTokenizerBase, tuple[str, ...]]:
    """Prove that a model has a row for whatever its tokenizer gives.

    Args:
        tokenizer: one that numbers types of tokens that the model does not have gives them no more.

    Returns:
        the tokenizer, or one without special tokens that the model has no rows for; notes on what is read otherwise
        than the tokenizer says.

    Raises:
        UnsafeModel: a token has no row.
    """
    rows = facts.shape.vocab_size
    tokenizer, notes = _fit_special(tokenizer, facts)
    without = sorted((number, token) for token, number in tokenizer.get_vocab().items() if number >= rows)
    if without:
        shown = listed([f"`{token}` ({number})" for number, token in without])
        raise UnsafeModel(
            f"the tokenizer produces ids beyond the model's {rows} embedding rows: {shown}",
            where=str(facts.folder),
            hint="where they were added, load the model with transformers, call `model.resize_token_embeddings("
            "len(tokenizer))` and train it with them; else take them out of the tokenizer's files",
        )
    return tokenizer, notes + _fit_types(tokenizer, facts)


def _fit_special(
    tokenizer: PreTrainedTokenizerBase, facts: CheckpointInfo
) -> tuple[PreTrainedTokenizerBase, tuple[str, ...]]:
    """Take away what pads and masks where the model has no row for it, and choose what pads."""
    rows, notes = facts.shape.vocab_size, list[str]()
    roles = ("pad_token",) if TASKS[facts.task].is_masked else ("pad_token", "mask_token")
    numbers = {role: getattr(tokenizer, f"{role}_id") for role in roles if getattr(tokenizer, role) is not None}
    rowless = {role: str(getattr(tokenizer, role)) for role, number in numbers.items() if number >= rows}
    if rowless and tokenizer.is_fast:
        tokenizer = _without_tokens(tokenizer, rowless)
        shown = listed([f"`{token}`" for token in rowless.values()])
        notes.append(f"the tokenizer's special tokens {shown} have no rows in the model's table: they are left out")
    if tokenizer.pad_token is None and (token := _padding(tokenizer, facts)) is not None:
        tokenizer.pad_token = token
        notes.append(f"the tokenizer has no token that pads: `{token}` does, which the attention mask leaves out")
    return tokenizer, tuple(notes)


def _without_tokens(tokenizer: PreTrainedTokenizerBase, roles: Mapping[str, str]) -> PreTrainedTokenizerBase:
    """The tokenizer without the special tokens of these roles, which its backend added after its vocabulary."""
    from tokenizers import Tokenizer

    about = json.loads(tokenizer.backend_tokenizer.to_str())
    about["added_tokens"] = [token for token in about["added_tokens"] if token["content"] not in roles.values()]
    backend = Tokenizer.from_str(json.dumps(about))
    backend.no_padding()
    return _of_no_class(tokenizer, backend, set(roles.values()))


def _padding(tokenizer: PreTrainedTokenizerBase, facts: CheckpointInfo) -> str | None:
    """A special token that can pad; None where there is none, or positions would be counted through it."""
    own = facts.config.get("pad_token_id")
    if own in tokenizer.all_special_ids:
        return str(tokenizer.convert_ids_to_tokens(own))
    if facts.anatomy.positions_follow_padding and tokenizer.padding_side == "left":
        return None
    tokens = (tokenizer.sep_token, tokenizer.eos_token, tokenizer.unk_token, tokenizer.cls_token)
    return next((str(token) for token in tokens if token is not None), None)


def _fit_types(tokenizer: PreTrainedTokenizerBase, facts: CheckpointInfo) -> tuple[str, ...]:
    types = facts.config.get("type_vocab_size", 2)
    if not facts.anatomy.has_token_types or not isinstance(types, int) or types == 0:  # 0: the class reads none
        return ()
    with refusing("the tokenizer cannot read a pair of texts", str(facts.folder)):
        given = tokenizer("a", "a", return_token_type_ids=True).get(_TYPES) or [0]
    if _TYPES not in tokenizer.model_input_names:
        return _add_types(tokenizer, facts) if 0 < max(given) < types else ()
    if max(given) < types:
        return ()
    if types > 1:
        raise UnsafeModel(
            f"the tokenizer gives tokens of type {max(given)}, and the model has {types} types",
            where=str(facts.folder),
            hint="put the model's own tokenizer beside it",
        )
    _name_inputs(tokenizer, [name for name in tokenizer.model_input_names if name != _TYPES])
    return (
        "the tokenizer marks the second text of a pair as token type 1, but the model has only one type: all "
        "tokens are read as type 0, and the saved tokenizer returns no types",
    )


def _add_types(tokenizer: PreTrainedTokenizerBase, facts: CheckpointInfo) -> tuple[str, ...]:
    """Have a tokenizer return the types that it knows, where only its class in transformers 5 leaves them out.

    Up to version 4 the same files gave them: it is what such a model was trained with.
    """
    path = facts.folder / "tokenizer_config.json"
    is_said = path.is_file() and read_object(path).get("model_input_names") is not None
    if is_said or not facts.anatomy.gives_token_types:
        return ()
    _name_inputs(tokenizer, [tokenizer.model_input_names[0], _TYPES, *tokenizer.model_input_names[1:]])
    return (
        f"`{type(tokenizer).__name__}` of transformers 5 returns no token types, and the model has them: the second "
        "text of a pair is type 1, as up to version 4, and the saved tokenizer says so",
    )


def _name_inputs(tokenizer: PreTrainedTokenizerBase, names: list[str]) -> None:
    """Say what a tokenizer returns, in what is saved of it, too."""
    tokenizer.model_input_names = names
    tokenizer.init_kwargs["model_input_names"] = names
