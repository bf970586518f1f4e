"""What a model folder says and its stock class would leave out in silence: refused by name, before a weight is loaded.

    files beside the model   adapters, a head of another library: they decide its outputs, and transformers never looks
                             at them; a pointer of git LFS in a file's place
    values of config.json    those that transformers 5 ignores, and those that make another network than the families'

Weights are looked at one by one in `weight_names`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bertshrink.errors import UnsafeModel, UserError, listed
from bertshrink.files.atomic import is_lfs_pointer
from bertshrink.files.shards import weight_files
from bertshrink.model.families import FAMILIES
from bertshrink.model.family import ModelFamily
from bertshrink.model.tasks import TASKS

_SETFIT = (
    "a classifier of SetFit: its head is a pickle of scikit-learn, which no stock class holds",
    "fine-tune the sentence encoder as a classifier: `bertshrink finetune DIR --task classification`, in a copy of the "
    "folder without this file; for the sentence encoder alone such a copy serves, too",
)
_ADAPTER_HUB = (
    "an adapter of the library `adapters`",
    "merge it into the model's weights, or use the model without it",
)
_BESIDE: dict[str, tuple[str, str]] = {
    "adapter_config.json": (
        "adapters of PEFT (LoRA and the like), which change the model's outputs",
        "merge them: `PeftModel.from_pretrained(AutoModel....from_pretrained(BASE), DIR).merge_and_unload()"
        ".save_pretrained(NEW)`, the tokenizer saved beside it",
    ),
    "config_setfit.json": _SETFIT,
    "model_head.pkl": _SETFIT,
    "model_head.joblib": _SETFIT,
    "pytorch_adapter.bin": _ADAPTER_HUB,
    "adapter.safetensors": _ADAPTER_HUB,
    "adapter_fusion_config.json": _ADAPTER_HUB,
    "head_config.json": _ADAPTER_HUB,
}
"""File -> what it is, and what to do."""

_READ = ("*.json", "*.txt", "*.model", "[0-9]*_*/config.json")
"""The small files that are read."""

_VALUES: dict[str, tuple[tuple[Any, ...], str, str]] = {
    "position_embedding_type": (
        (None, "absolute"),
        "relative positions, which transformers 5 no longer supports: the outputs would differ",
        "use a model with absolute positions",
    ),
    "pruned_heads": (
        (None, {}),
        "pruned attention heads, which transformers 5 no longer supports",
        "use the model from before the pruning; `bertshrink distill` makes it smaller by layers and width",
    ),
    "is_decoder": ((None, False), "a decoder, whose tokens see only those before them", "use an encoder"),
    "is_encoder_decoder": ((None, False), "an encoder with a decoder", "use an encoder"),
    "add_cross_attention": ((None, False), "cross-attention", "use a standalone encoder"),
    "inner_group_num": (
        (None, 1),
        "an ALBERT whose groups hold several layers each; bertshrink knows one layer a group",
        "use an ALBERT with `inner_group_num: 1`",
    ),
    "chunk_size_feed_forward": (
        (None, 0),
        "feed-forward layers that run in chunks of tokens, which takes only lengths that are multiples of it",
        "set it to 0: the numbers stay the same",
    ),
    "quantization_config": (
        (None, {}),
        "weights quantized by another library; they would be misread as plain numbers",
        "give the model from before that: `bertshrink quantize` starts from float weights",
    ),
    "adapters": ((None, {}), *_ADAPTER_HUB),
}
"""Key of config.json -> values that are harmless, what any other means, and what to do.

Left out because they change nothing when a model answers: dropout, initialisation, `classifier_dropout`, `use_cache`,
`gradient_checkpointing`, `torch_dtype`, what is output besides (`output_hidden_states`), `task_specific_params`.
"""


def refuse_task_without_class(anatomy: ModelFamily, task: str, where: str) -> None:
    """Refuse a task that no stock class of the family has. Raises UserError."""
    if TASKS[task].reads_context and anatomy.answer_head is None:
        raise UserError(
            f"transformers has no class of {anatomy.title} for `{task}`",
            where=where,
            hint="choose another task, or a model of another family",
        )


def refuse_other_head(anatomy: ModelFamily, config: Mapping[str, Any], task: str, where: str) -> None:
    """Refuse a head on masked tokens that is not the one which the table of families knows. Raises UserError."""
    switch = anatomy.masked_head.switch
    if TASKS[task].has_masked_head and switch is not None and not config.get(switch, True):
        raise UserError(
            f"`{switch}: false` in config.json: {anatomy.title} has another head on masked tokens then, which "
            "bertshrink does not read",
            where=where,
            hint="the model without its head is read with `--task embedding`",
        )


def refuse_beside(folder: Path) -> None:
    """Refuse a folder with files that decide the model's outputs and that no stock class reads.

    Raises:
        UnsafeModel: there is one, a file is a pointer of git LFS, or the index of several weights' files is damaged.
    """
    for name, (what, hint) in _BESIDE.items():
        if (folder / name).exists():
            raise UnsafeModel(f"`{name}`: the folder holds {what}", where=str(folder / name), hint=hint)
    refuse_pointers(folder)
    refuse_pointers(folder, *weight_files(folder))


def refuse_pointers(folder: Path, *files: Path) -> None:
    """Refuse a folder in which git LFS left pointers where files should be that are read; others do not matter.

    Args:
        files: what is read besides its small files.

    Raises:
        UnsafeModel: it did.
    """
    paths = {path for pattern in _READ for path in folder.glob(pattern)} | set(files)
    names = sorted(path.relative_to(folder).as_posix() for path in paths if is_lfs_pointer(path))
    if names:
        shown = listed([f"`{name}`" for name in names])
        is_one = len(names) == 1
        raise UnsafeModel(
            f"{shown} {'is a pointer' if is_one else 'are pointers'} of git LFS, not the file{'' if is_one else 's'}",
            where=str(folder / names[0]),
            hint="run `git lfs install` and `git lfs pull` in the repository that it comes from",
        )


def refuse_unnamed(config: Mapping[str, Any], where: str) -> None:
    """Refuse a configuration that names no family, as the first ones: transformers would go by the folder's name.

    Raises:
        UserError: it does not; the hint has the family, where the class's name says it.
    """
    if config.get("model_type") is not None:
        return
    classes = [str(name) for name in config.get("architectures") or ()]
    named = {family for family, row in FAMILIES.items() if any(_is_of(row.title, name) for name in classes)}
    known = ", ".join(FAMILIES)
    hint = f'write `"model_type": "{named.pop()}"` into it' if len(named) == 1 else f"write its `model_type`: {known}"
    what = f"config.json names no `model_type`; its class is `{', '.join(classes) or 'not named'}`"
    raise UserError(what, where=where, hint=hint)


def _is_of(title: str, name: str) -> bool:
    """Whether a class's name is a family's: its title, then `For...` or `Model`."""
    rest = name[len(title.replace("-", "")) :]
    return name.lower().startswith(title.replace("-", "").lower()) and rest.startswith(("For", "Model"))


def refuse_unpadded(anatomy: ModelFamily, config: Mapping[str, Any], where: str) -> None:
    """Refuse a model that counts positions from the padding's id, and has none; raises UserError."""
    if anatomy.positions_follow_padding and config.get("pad_token_id", 0) is None:
        raise UserError(
            f"`pad_token_id` of config.json is null, and {anatomy.title} counts positions from it",
            where=where,
            hint="write the id with which the model was trained; of the published ones it is that of the tokenizer's "
            "`pad_token`",
        )


def refuse_values(config: Mapping[str, Any], where: str) -> None:
    """Refuse values of config.json that make another network than the stock class builds; raises UnsafeModel."""
    for key, (harmless, what, hint) in _VALUES.items():
        value = config.get(key)
        is_harmless = any(value == one and isinstance(value, type(one)) for one in harmless)
        if key == "adapters" and isinstance(value, Mapping):
            is_harmless = not value.get("adapters")
        if not is_harmless:
            shown = str(value) if len(str(value)) <= 40 else f"{str(value)[:40]}..."
            raise UnsafeModel(f"`{key}: {shown}` in config.json: {what}", where=where, hint=hint)
