"""The ways to run one model, as a user asks for them, so that it can be in one table under several engines.

    --engine torch                     PyTorch, eager, float32
    --engine torch:bfloat16,compiled       in bfloat16, compiled by Inductor
    --engine torch:float16,graphs         on a GPU, replayed as CUDA graphs
    --engine onnxruntime --engine openvino --engine openvino:bfloat16
    --engine onnxruntime:exact-int8    int8 as VNNI and ARM compute it, on x86 without VNNI

A model folder runs by PyTorch alone; an .onnx file by ONNX Runtime and OpenVINO; .ort and .pte files by their own
engine. Of what is asked, every model gets what it can run.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bertshrink.engines import ENGINES
from bertshrink.errors import UserError, did_you_mean
from bertshrink.worker.job import RunSpec

FLAG = "--engine"
_EXAMPLE = "write an engine and its options, such as `torch:bfloat16,compiled`"

_EXACT_INT8 = {"session.x64quantprecision": "1"}
"""On x86 without VNNI, ONNX Runtime's fastest int8 products add pairs in 16 bits and saturate; this asks for those that
do not, whose results are those of VNNI and of ARM."""

WORDS: dict[str, dict[str, tuple[str, Any]]] = {
    # engine -> word -> (the engine's option, its value)
    "torch": {
        "float32": ("dtype", "float32"),
        "bfloat16": ("dtype", "bfloat16"),
        "float16": ("dtype", "float16"),
        "eager": ("compile", None),
        "compiled": ("compile", "default"),
        "reduce-overhead": ("compile", "reduce-overhead"),
        "graphs": ("cuda_graphs", True),
        "tf32": ("tf32", True),
        "sdpa": ("attention", "sdpa"),
        "eager-attention": ("attention", "eager"),
    },
    "onnxruntime": {"tf32": ("tf32", True), "exact-int8": ("config", _EXACT_INT8)},
    "openvino": {
        "float32": ("precision", "float32"),
        "bfloat16": ("precision", "bfloat16"),
        "float16": ("precision", "float16"),
    },
    "executorch": {},
}
_GPU_ONLY = ("cuda_graphs", "tf32")
_OPENS = {
    # engine -> what it opens: endings of files, or a folder
    "torch": ("folder",),
    "onnxruntime": (".onnx", ".ort"),
    "openvino": (".onnx",),
    "executorch": (".pte",),
}


@dataclass(frozen=True)
class EngineVariant:
    """One way to run models.

    Attributes:
        engine: a name in `engines.ENGINES`.
        words: as they were asked for, in the order of the table.
    """

    engine: str
    words: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """`torch:bfloat16,compiled`."""
        return f"{self.engine}:{','.join(self.words)}" if self.words else self.engine

    @property
    def options(self) -> dict[str, Any]:
        """The engine's options."""
        return dict(WORDS[self.engine][word] for word in self.words)

    @property
    def is_gpus(self) -> bool:
        """Whether it asks for something that only a GPU has."""
        return any(name in _GPU_ONLY for name in self.options)


def read_variant(text: str) -> EngineVariant:
    """Read what a user asks for.

    Raises:
        UserError: an engine or a word that is not known, a word twice, or two words for one thing.
    """
    engine, colon, rest = text.strip().partition(":")
    if engine not in ENGINES:
        raise UserError(f"there is no engine `{engine}`", where=FLAG, hint=did_you_mean(engine, ENGINES))
    words = tuple(word.strip() for word in rest.split(",")) if colon else ()
    _refuse_words(engine, words, text)
    return EngineVariant(engine, tuple(word for word in WORDS[engine] if word in words))


def _refuse_words(engine: str, words: Sequence[str], text: str) -> None:
    """Refuse words that are not known, and those that exclude each other."""
    known, leave_out = WORDS[engine], "leave one of them out"
    for word in words:
        if word not in known:
            what = f"`{engine}` has no option `{word}`" if word else f"an option is missing in `{text}`"
            hint = (
                did_you_mean(word, known) if word and known else _EXAMPLE if known else f"`{engine}` takes no options"
            )
            raise UserError(what, where=FLAG, hint=hint)
    said: dict[str, str] = {}
    for word in words:
        other = said.setdefault(known[word][0], word)
        if other != word:
            raise UserError(f"`{other}` and `{word}` exclude each other in `{text}`", where=FLAG, hint=leave_out)
    if len(set(words)) < len(words):
        raise UserError(f"an option appears twice in `{text}`", where=FLAG, hint=leave_out)
    if {"graphs", "reduce-overhead"} <= set(words):
        what = f"`graphs` and `reduce-overhead` both record CUDA graphs, in `{text}`"
        raise UserError(what, where=FLAG, hint=leave_out)


def variants_of(launch: RunSpec, asked: Sequence[EngineVariant]) -> dict[str, RunSpec]:
    """The launches of one model by the labels of those variants that can run it, in the order asked."""
    kind = "folder" if launch.engine == "torch" else launch.path.suffix
    variants = {}
    for variant in asked:
        if kind in _OPENS[variant.engine]:
            own = launch.options if launch.engine == variant.engine else {}
            variants[variant.label] = replace(launch, engine=variant.engine, options={**own, **variant.options})
    return variants


def expand_variants(
    launches: Mapping[str, RunSpec], asked: Sequence[str], *, on_gpu: bool = False
) -> dict[str, RunSpec]:
    """All models in all ways that were asked for.

    Args:
        asked: as the user wrote them; none: every model by its own engine, as it is.

    Returns:
        The launches: by the model's name where one way is asked for that runs it, else by name and way,
        `teacher (torch:bfloat16)`.

    Raises:
        UserError: a fault in what is asked, the same twice, a way that runs no model, a model that no way runs.
    """
    if not asked:
        return dict(launches)
    variants = [read_variant(text) for text in asked]
    _refuse_variants(variants, on_gpu)
    ways = {name: variants_of(launch, variants) for name, launch in launches.items()}
    labels = [variant.label for variant in variants]
    for name, of_model in ways.items():
        if not of_model:
            fits = [engine for engine in _OPENS if variants_of(launches[name], [EngineVariant(engine)])]
            hint = f"what runs it: {', '.join(fits)}"
            raise UserError(f"none of {', '.join(labels)} runs `{name}`", where=FLAG, hint=hint)
    for variant in variants:
        if all(variant.label not in of_model for of_model in ways.values()):
            opens = " and ".join(_OPENS[variant.engine])
            hint = f"it opens {'a model folder' if opens == 'folder' else f'{opens} files'}"
            raise UserError(f"`{variant.label}` runs none of the models", where=FLAG, hint=hint)
    return {
        name if len(labels) == 1 else _of_way(name, label): launch
        for name, of_model in ways.items()
        for label, launch in of_model.items()
    }


def ways_of(models: Iterable[str], asked: Sequence[str]) -> dict[str, tuple[str, str]]:
    """The model and the way, `torch:bfloat16`, by the names that `expand_variants` gives to launches."""
    labels = [read_variant(text).label for text in asked]
    return {_of_way(model, label): (model, label) for model in models for label in labels}


def _of_way(model: str, label: str) -> str:
    return f"{model} ({label})"


def _refuse_variants(variants: Sequence[EngineVariant], on_gpu: bool) -> None:
    """Refuse a way that is requested twice, and one that needs a GPU where there will be none."""
    for at, variant in enumerate(variants):
        if variant in variants[:at]:
            raise UserError(f"`{variant.label}` is requested twice", where=FLAG, hint="leave one of them out")
        if variant.is_gpus and not on_gpu:
            hint = "ask for `--target gpu`, or leave out `graphs` and `tf32`"
            raise UserError(f"`{variant.label}` needs a GPU", where=FLAG, hint=hint)
