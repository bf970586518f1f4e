"""How token vectors become a sentence vector: the modules of sentence-transformers behind its Transformer, or refused.

    Pooling     cls, max, mean, mean_sqrt_len_tokens, weightedmean, lasttoken, or several of them, joined
    Dense       activation(W x + b); with `use_residual` x (or R x, where the sizes differ) is added
    LayerNorm   of the vector
    Normalize   to length 1
    Dropout     nothing, when a model answers

A sparse encoder (SPLADE) has one module, SpladePooling, which joins the head's logits of all tokens into a number for
each token of the vocabulary: log(1 + relu(logit)), the largest or the sum; with `log1p_relu` once more log(1 + that).
`max_active_dims` makes all but the largest of them 0.

After Pooling the others may come in any order and number. `truncate_dim` cuts last, whatever is in front of it. The
weights of Dense and LayerNorm are in the modules' own folders: see `layer_weights`. Standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, cast

from bertshrink.errors import UnsafeModel, UserError, listed
from bertshrink.files.json_files import read_object

_Dense = Literal["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]
_Sparse = Literal["splade_max", "splade_sum", "splade_max_log1p", "splade_sum_log1p"]
Mode = _Dense | _Sparse

Similarity = Literal["cosine", "dot", "euclidean", "manhattan"]
"""How near two vectors are; of the last two, distances, the negative."""

SUPPORTED = "supported: Transformer, Pooling, and behind it Dense, LayerNorm, Normalize and Dropout"
AGAIN = "download or save the model again"
ACTIVATIONS = ("Identity", "Tanh", "ReLU", "GELU", "Sigmoid", "SiLU", "ELU", "LeakyReLU")
"""Of a Dense, as `torch.nn` names them: without parameters, and with one answer for one input."""

TRANSFORMERS = ("Transformer", "MLMTransformer")
"""The first module; of a sparse encoder that version 5 saved, the second one."""
_VECTOR = "sentence_embedding"
MODE_KEYS: dict[str, Mode] = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
"""The keys of version 5 and before -> modes, in the order in which that library joins them."""
_KEYS: dict[str, tuple[str, ...]] = {
    "Pooling": ("embedding_dimension", "word_embedding_dimension", "pooling_mode", "include_prompt", *MODE_KEYS),
    "Dense": (
        *("in_features", "out_features", "bias", "activation_function", "use_residual"),
        *("module_input_name", "module_output_name"),
    ),
    "LayerNorm": ("dimension",),
    "Normalize": ("module_input_name", "module_output_name"),
    "Dropout": ("dropout",),
    "SpladePooling": ("pooling_strategy", "activation_function", "embedding_dimension", "word_embedding_dimension"),
}
"""Module -> what its config.json may say."""
_PLACE = re.compile(r"[0-9]+_\w+")
"""The folder of a module with weights, as sentence-transformers names it: what else is beside a model is not copied."""


@dataclass(frozen=True)
class SentenceLayer:
    """One module behind the pooling.

    Attributes:
        kind: of module.
        path: the folder that holds its weights; empty where it has none.
        inputs, outputs: numbers of its vectors; 0 where it takes any.
        activation: a name in `ACTIVATIONS`.
        bias: whether a Dense adds one.
        residual: whether a Dense adds its input.
    """

    kind: Literal["dense", "norm", "unit"]
    path: str = ""
    inputs: int = 0
    outputs: int = 0
    activation: str = "Identity"
    bias: bool = True
    residual: bool = False

    @property
    def spec(self) -> dict[str, Any]:
        """As `sentence_layers.build` and engines' options take it."""
        return asdict(self)


@dataclass(frozen=True)
class Pooling:
    """How token vectors become a sentence vector.

    Attributes:
        mode: of the pooling; several: their vectors are joined.
        normalize: whether the last module makes vectors one long.
        dimension: how many of their numbers stay; None: all.
        skip: how many tokens at the start no vector is made of: those of the default prompt, of a pooling that leaves
            prompts out (`include_prompt: false`).
        active: how many numbers of a vector stay at most, those farthest from 0 (`max_active_dims`); the others become
            0. None: all stay.
        layers: what is between the pooling and that last module.
    """

    mode: Mode | tuple[Mode, ...] = "mean"
    normalize: bool = True
    dimension: int | None = None
    skip: int = 0
    active: int | None = None
    layers: tuple[SentenceLayer, ...] = ()

    @property
    def spec(self) -> tuple[Any, ...]:
        """(mode, normalize, dimension, skip, active) as `torch_session.pool`, cards and engines' options take it, the
        last ones where there are some; layers are apart.
        """
        if self.active is not None:
            return (self.mode, self.normalize, self.dimension, self.skip, self.active)
        if self.skip:
            return (self.mode, self.normalize, self.dimension, self.skip)
        return (self.mode, self.normalize) if self.dimension is None else (self.mode, self.normalize, self.dimension)

    @property
    def modes(self) -> tuple[Mode, ...]:
        """In the order in which their vectors are joined."""
        return cast("tuple[Mode, ...]", (self.mode,)) if isinstance(self.mode, str) else self.mode

    def width(self, hidden_size: int) -> int:
        """Numbers of a sentence vector before it is cut."""
        sizes = [hidden_size * len(self.modes), *(layer.outputs for layer in self.layers if layer.outputs)]
        return sizes[-1]

    def check(self, hidden_size: int, where: str) -> None:
        """Prove that each layer takes what comes out of those before it; raises UserError."""
        size = hidden_size * len(self.modes)
        for layer in self.layers:
            if layer.inputs and layer.inputs != size:
                raise UserError(
                    f"the module in `{layer.path}` takes vectors of {layer.inputs} numbers, and gets {size}",
                    where=where,
                    hint="fix the sizes in its config.json, or save the model again",
                )
            size = layer.outputs or size


def read_pooling(folder: Path, modules: Sequence[Mapping[str, Any]], dimension: int | None, where: str) -> Pooling:
    """What the modules of modules.json behind the Transformer say.

    Args:
        dimension: `truncate_dim`.
        where: modules.json, for messages.

    Raises:
        UnsafeModel: a damaged file.
        UserError: a module, an order of them or a setting that is not supported.
    """
    kinds = [kind_of(module) for module in modules]
    own = [at for at, kind in enumerate(kinds) if kind == "Pooling"]
    if len(own) != 1:
        raise UserError(
            f"a sentence encoder has one Pooling, and `modules.json` lists {len(own)}", where=where, hint=SUPPORTED
        )
    if own != [1] or kinds.count("Transformer") != 1:
        raise UserError(
            f"the modules {', '.join(f'`{kind}`' for kind in kinds)} in this order are not supported",
            where=where,
            hint="supported: Transformer, then Pooling, then perhaps Dense, LayerNorm, Normalize and Dropout",
        )
    mode = _mode(folder / str(modules[1].get("path") or "") / "config.json")
    layers = [_layer(folder, module, where) for module in modules[2:] if kind_of(module) != "Dropout"]
    normalize = bool(layers) and layers[-1].kind == "unit"
    return Pooling(mode, normalize, dimension, layers=tuple(layers[: len(layers) - normalize]))


SPLADE = Pooling("splade_max", normalize=False)
"""Of a sparse encoder, where nothing else is said."""
SPLADE_MODES: dict[Mode, tuple[str, str]] = {
    "splade_max": ("max", "relu"),
    "splade_sum": ("sum", "relu"),
    "splade_max_log1p": ("max", "log1p_relu"),
    "splade_sum_log1p": ("sum", "log1p_relu"),
}
"""Mode -> `pooling_strategy` and `activation_function` of a SpladePooling."""


def read_splade(folder: Path, modules: Sequence[Mapping[str, Any]], active: int | None, where: str) -> Pooling:
    """What the modules of a sparse encoder say; arguments and errors as of `read_pooling`.

    Args:
        active: `max_active_dims`.
    """
    kinds = [kind_of(module) for module in modules]
    if len(kinds) != 2 or kinds[0] not in TRANSFORMERS or kinds[1] != "SpladePooling":
        raise UserError(
            f"the modules {', '.join(f'`{kind}`' for kind in kinds)} of a sparse encoder are not supported",
            where=where,
            hint="supported: a Transformer or MLMTransformer, then SpladePooling",
        )
    said, path = _settings(folder, modules[1])
    asked = (said.get("pooling_strategy", "max"), said.get("activation_function", "relu"))
    mode = next((mode for mode, one in SPLADE_MODES.items() if one == asked), None)
    if mode is None:
        what = f"SpladePooling by `{asked[0]}` of `{asked[1]}` is not supported"
        raise UserError(what, where=str(path), hint="supported: `max` or `sum`, of `relu` or `log1p_relu`")
    return Pooling(mode, normalize=False, active=active)


def kind_of(module: Mapping[str, Any]) -> str:
    """A module's class without the place that it is imported from."""
    return str(module.get("type", "")).rpartition(".")[2]


def activation_at(named: Any, known: Sequence[str]) -> str | None:
    """The class of `torch.nn` that an import path names; None: none of those that are known."""
    places = ("torch.nn", "torch.nn.modules", "torch.nn.modules.activation", "torch.nn.modules.linear")
    module, _, name = str(named).rpartition(".")
    return name if module in places and name in known else None


def _settings(folder: Path, module: Mapping[str, Any]) -> tuple[dict[str, Any], Path]:
    """What a module's config.json says, and where it is; a key that is not known is refused."""
    path, kind = folder / str(module.get("path") or "") / "config.json", kind_of(module)
    said = read_object(path) if path.is_file() or kind not in ("Normalize", "Dropout") else {}
    strange = next((key for key in said if key not in _KEYS[kind]), None)
    if strange is not None:
        raise UserError(
            f"the setting `{strange}` of the sentence-transformers module `{kind}` is not supported",
            where=str(path),
            hint=f"known settings: {listed([f'`{key}`' for key in _KEYS[kind]], 12)}",
        )
    for key in ("module_input_name", "module_output_name"):
        if said.get(key) not in (None, _VECTOR):
            what = f"the module `{kind}` works on `{said[key]}`, not on the sentence's vector"
            raise UserError(what, where=str(path), hint=SUPPORTED)
    return said, path


def _mode(path: Path) -> Mode | tuple[Mode, ...]:
    """Of the Pooling whose config.json is at `path`."""
    said, _ = _settings(path.parent, {"type": "Pooling"})
    if "pooling_mode" in said:  # then that library does not look at the older keys
        named = said["pooling_mode"]
        chosen = list(named) if isinstance(named, list) else [named]
    else:
        chosen = [mode for key, mode in MODE_KEYS.items() if said.get(key)] or ["mean"]
    strange = [mode for mode in chosen if mode not in MODE_KEYS.values()]
    if strange or not chosen:
        what = f"pooling {', '.join(f'`{mode}`' for mode in strange) or '`none`'} is not supported"
        raise UserError(what, where=str(path), hint=f"supported: {', '.join(MODE_KEYS.values())}, or several of them")
    return cast("Mode", chosen[0]) if len(chosen) == 1 else tuple(chosen)


def _layer(folder: Path, module: Mapping[str, Any], where: str) -> SentenceLayer:
    said, path = _settings(folder, module)
    place = str(module.get("path") or "")
    if kind_of(module) == "Normalize":
        return SentenceLayer("unit")
    if not _PLACE.fullmatch(place):
        raise UserError(
            f"the module `{kind_of(module)}` is in `{place}`, where `NUMBER_NAME` is expected",
            where=where,
            hint="load and save the model again with a current sentence-transformers",
        )
    if kind_of(module) == "LayerNorm":
        size = _size(said, "dimension", path)
        return SentenceLayer("norm", place, size, size)
    named = said.get("activation_function", "torch.nn.Tanh")  # what that library takes where nothing is said
    activation = activation_at(named, ACTIVATIONS)
    if activation is None:
        raise UserError(
            f"the activation `{named}` of the sentence-transformers module `Dense` is not supported",
            where=str(path),
            hint=f"supported: {', '.join(f'torch.nn.{known}' for known in ACTIVATIONS)}",
        )
    inputs, outputs = _size(said, "in_features", path), _size(said, "out_features", path)
    bias, residual = said.get("bias", True) is True, said.get("use_residual", False) is True
    return SentenceLayer("dense", place, inputs, outputs, activation, bias, residual)


def _size(said: Mapping[str, Any], key: str, path: Path) -> int:
    value = said.get(key)
    if type(value) is not int or value < 1:
        raise UnsafeModel(f"`{key}` is `{value}`, which is not a number of dimensions", where=str(path), hint=AGAIN)
    return value
