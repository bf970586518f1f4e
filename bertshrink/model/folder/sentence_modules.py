"""What a sentence-transformers folder says beside its transformer, read as that library reads it, or refused by name.

    modules.json                       which modules follow each other; a Pooling makes a sentence encoder, a class with
                                       a head alone a cross-encoder (one or more scores for a pair)
    1_Pooling/config.json              mean, cls or max
    sentence_bert_config.json          (or `sentence_roberta_config.json` ...) the longest input, small letters
    config_sentence_transformers.json  the kind of model, `truncate_dim`, prompts, the activation of a cross-encoder

    kept    pooling, a Normalize behind it, `truncate_dim` (vectors are cut as its last step), `max_seq_length`,
            `do_lower_case` (the tokenizer then does it), the default prompt (put before every text), a sigmoid at the
            end (told: outputs are logits, as the class gives them, and CrossEncoder makes scores of them)
    refused every other module, pooling and setting: they decide the vectors, and no stock checkpoint holds them

The files themselves travel along (see `travel`). Standard library only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bertshrink.errors import UnsafeModel, UserError
from bertshrink.files.json_files import read_json, read_object

MODULES = "modules.json"
SETTINGS = "config_sentence_transformers.json"
OF_TRANSFORMER = (
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
)
"""The names under which the Transformer module's settings are looked for, in this order."""

_AGAIN = "download or save the model again"
_SUPPORTED = "supported: Transformer, Pooling (mean, cls, max), Normalize, Dropout"
_POOLING_KEYS = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
}
_FREE = ("max_seq_length", "do_lower_case", "unpad_inputs", "modality_config", "module_output_name", "transformer_task")
"""Settings of the Transformer module that are read below, or change how fast it runs only."""
_OF_MODELS = ("torch_dtype", "dtype", "attn_implementation", "use_safetensors", "device_map", "low_cpu_mem_usage")
_OF_TOKENIZERS = ("model_max_length", "use_fast")
_KEYWORDS: dict[str, tuple[str, ...]] = {
    "model_args": _OF_MODELS,
    "model_kwargs": _OF_MODELS,
    "tokenizer_args": _OF_TOKENIZERS,
    "processor_kwargs": _OF_TOKENIZERS,
    "config_args": (),
    "config_kwargs": (),
}
"""What it hands to transformers -> keys that change no output in float32."""
_OUTPUTS = {"encoder": ("last_hidden_state", "token_embeddings"), "cross-encoder": ("logits", "scores")}
_ACTIVATIONS: dict[str, Literal["identity", "sigmoid"]] = {"Identity": "identity", "Sigmoid": "sigmoid"}


@dataclass(frozen=True)
class Pooling:
    """How token vectors become a sentence vector; `dimension`: how many of its numbers stay, None: all."""

    mode: Literal["mean", "cls", "max"] = "mean"
    normalize: bool = True
    dimension: int | None = None

    @property
    def spec(self) -> tuple[str, bool] | tuple[str, bool, int]:
        """As `torch_engine.pool`, cards and engines' options take it."""
        return (self.mode, self.normalize) if self.dimension is None else (self.mode, self.normalize, self.dimension)


@dataclass(frozen=True)
class Sentence:
    """What a sentence-transformers folder says.

    Attributes:
        kind: a sentence encoder or a cross-encoder.
        pooling: of a sentence encoder.
        lower_case: whether texts are read in small letters, whatever the tokenizer does.
        prompts: every prompt by its name.
        default: the name of the prompt that is put before every text; None: none is.
    """

    kind: Literal["encoder", "cross-encoder"]
    pooling: Pooling | None = None
    lower_case: bool = False
    prompts: Mapping[str, str] | None = None
    default: str | None = None

    @property
    def prompt(self) -> str:
        """What is put before every text."""
        return (self.prompts or {}).get(self.default or "", "")

    def notes(self) -> list[str]:
        """What whoever uses the model must know of its vectors and texts."""
        notes = []
        if self.pooling is not None and self.pooling.dimension is not None:
            notes.append(
                f"its vectors are truncated to {self.pooling.dimension} dimensions (`truncate_dim`), as are those "
                "of every model made from it"
            )
        if self.lower_case:
            notes.append("texts are lower-cased (`do_lower_case`): the saved tokenizer does so itself")
        named = ", ".join(f"`{name}`" for name, text in sorted((self.prompts or {}).items()) if text)
        if self.prompt:
            notes.append(
                f"the prompt `{self.prompt}` (`{self.default}`, the default) is prepended to every text, as "
                "sentence-transformers does; callers of the plain tokenizer must prepend it themselves"
            )
        elif named:
            notes.append(f"prompts ({named}) are kept in its settings; none is the default, so none is prepended")
        return notes


def read_modules(folder: Path) -> list[dict[str, Any]] | None:
    """modules.json; None where there is none.

    Raises:
        UnsafeModel: it is damaged, or leads out of the folder.
        UserError: the transformer is in a folder of its own.
    """
    path = folder / MODULES
    if not path.is_file():
        return None
    listed = read_json(path)
    if not isinstance(listed, list) or not all(isinstance(module, dict) for module in listed):
        raise UnsafeModel(f"`{MODULES}` is not a list of modules", where=str(path), hint=_AGAIN)
    for module in listed:
        place = str(module.get("path") or "")
        if not (folder / place).resolve().is_relative_to(folder.resolve()):
            raise UnsafeModel(f"`{MODULES}` points outside the model's folder: `{place}`", where=str(path), hint=_AGAIN)
        if _kind(module) == "Transformer" and place:
            raise UserError(
                f"the transformer of this sentence-transformers model is in `{place}/`, not at the top",
                where=str(path),
                hint="load and save it again with a current sentence-transformers, which writes it at the top: "
                "`SentenceTransformer(DIR).save(NEW)`",
            )
    return listed


def read_sentence(folder: Path, config: Mapping[str, Any], *, has_modules_inside: bool = False) -> Sentence | None:
    """What the folder says; None where it is not a folder of sentence-transformers.

    Args:
        has_modules_inside: whether it is about a graph that ends in sentence vectors, whatever module makes them.

    Raises:
        UnsafeModel: a damaged file, or a path out of the folder.
        UserError: a layout, a module or a setting that is not supported.
    """
    modules = read_modules(folder)
    if modules is None:
        return None
    where = str(folder / MODULES)
    settings = read_object(folder / SETTINGS) if (folder / SETTINGS).is_file() else {}
    kind = _kind_of_model(settings, modules, config, where)
    lower_case = _read_transformer(folder, kind)
    if not has_modules_inside:
        _refuse_modules(modules, ("Transformer",) if kind == "cross-encoder" else _CHAIN, where)
    pooling, dimension = None, _read_dimension(settings, str(folder / SETTINGS))
    if kind == "encoder":
        pooling = (
            Pooling(dimension=dimension) if has_modules_inside else _read_pooling(folder, modules, dimension, where)
        )
    prompts, default = _read_prompts(settings, str(folder / SETTINGS))
    if pooling is not None and any(prompts.values()):
        _refuse_without_prompt(folder, modules)
    return Sentence(kind, pooling, lower_case, prompts, default)


_CHAIN = ("Transformer", "Pooling", "Normalize", "Dropout")


def _kind(module: Mapping[str, Any]) -> str:
    return str(module.get("type", "")).rpartition(".")[2]


def _kind_of_model(
    settings: Mapping[str, Any], modules: list[dict[str, Any]], config: Mapping[str, Any], where: str
) -> Literal["encoder", "cross-encoder"]:
    said = settings.get("model_type")
    kinds = [_kind(module) for module in modules]
    has_head = any(str(name).endswith("ForSequenceClassification") for name in config.get("architectures") or [])
    if said == "CrossEncoder" or (said is None and has_head and kinds == ["Transformer"]):
        if kinds == ["Transformer"] and not has_head:
            raise UserError(
                "a cross-encoder whose class, `architectures` in config.json, has no head for scores",
                where=where,
                hint="give the model as sentence-transformers saved it after its training",
            )
        return "cross-encoder"
    if said not in (None, "SentenceTransformer"):
        raise UserError(
            f"the model is a `{said}` of sentence-transformers, which does not return one plain vector per text",
            where=where,
            hint="known kinds: SentenceTransformer, CrossEncoder",
        )
    return "encoder"


def _refuse_modules(modules: list[dict[str, Any]], known: tuple[str, ...], where: str) -> None:
    """Refuse modules that are not known, or are where they mean something else."""
    kinds = [_kind(module) for module in modules]
    strange = next((kind for kind in kinds if kind not in known), None)
    if strange is not None:
        hint = (
            _SUPPORTED if len(known) > 1 else "a cross-encoder is a Transformer with its own head, and nothing after it"
        )
        raise UserError(f"the sentence-transformers module `{strange}` is not supported", where=where, hint=hint)
    chain = [kind for kind in kinds if kind != "Dropout"]
    if chain not in (["Transformer"], ["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        raise UserError(
            f"the modules {', '.join(f'`{kind}`' for kind in kinds)} in this order are not supported",
            where=where,
            hint="supported: Transformer, then Pooling, then perhaps Normalize",
        )


def _read_transformer(folder: Path, kind: Literal["encoder", "cross-encoder"]) -> bool:
    """Prove the Transformer module's settings; returns whether it reads small letters."""
    path = next((folder / name for name in OF_TRANSFORMER if (folder / name).is_file()), None)
    if path is None:
        return False
    said = read_object(path)
    hint = "save the model with the default of this setting, or use it with sentence-transformers alone"
    task, output = _OUTPUTS[kind], said.get("module_output_name")
    methods = said.get("modality_config") or {"text": {"method": "forward", "method_output_name": task[0]}}
    text = methods.get("text") if isinstance(methods, dict) else None
    if text != {"method": "forward", "method_output_name": task[0]} or output not in (None, task[1]):
        what = f"the Transformer module gives `{output}` of `{text}`, where `{task[1]}` of `{task[0]}` is supported"
        raise UserError(what, where=str(path), hint=hint)
    for key, value in said.items():
        allowed = _KEYWORDS.get(key)
        strange = key if allowed is None and key not in _FREE and value not in (None, {}) else None
        if allowed is not None and isinstance(value, dict):
            strange = next((f"{key}: {inner}" for inner in value if inner not in allowed), None)
        if strange is not None:
            what = f"the setting `{strange}` of the sentence-transformers module `Transformer` is not supported"
            raise UserError(what, where=str(path), hint=hint)
    return said.get("do_lower_case") is True


def _read_pooling(folder: Path, modules: list[dict[str, Any]], dimension: int | None, where: str) -> Pooling:
    own = [module for module in modules if _kind(module) == "Pooling"]
    if len(own) != 1:
        raise UserError(
            f"a sentence encoder has one Pooling, and `{MODULES}` lists {len(own)}", where=where, hint=_SUPPORTED
        )
    for module in modules:
        path = folder / str(module.get("path") or "") / "config.json"
        if _kind(module) == "Normalize" and path.is_file():
            reads = read_object(path).get("module_input_name", "sentence_embedding")
            if reads != "sentence_embedding":
                what = f"the module `Normalize` works on `{reads}`, not on the sentence's vector"
                raise UserError(what, where=str(path), hint=_SUPPORTED)
    mode = _pooling_mode(folder / str(own[0].get("path") or "") / "config.json")
    return Pooling(mode, any(_kind(module) == "Normalize" for module in modules), dimension)


def _read_dimension(settings: Mapping[str, Any], where: str) -> int | None:
    dimension = settings.get("truncate_dim")
    if dimension is None or (isinstance(dimension, int) and not isinstance(dimension, bool) and dimension > 0):
        return dimension
    what = f"`truncate_dim` is `{dimension}`, which is not a number of dimensions"
    raise UserError(what, where=where, hint="fix it, or set it to null")


def _pooling_mode(path: Path) -> Literal["mean", "cls", "max"]:
    config = read_object(path)
    named = config.get("pooling_mode")
    if named:
        chosen = list(named) if isinstance(named, list) else [named]
    else:
        chosen = [mode for key, mode in _POOLING_KEYS.items() if config.get(key)]
    others = [
        key for key, on in config.items() if key.startswith("pooling_mode_") and on is True and key not in _POOLING_KEYS
    ]
    match chosen:
        case ["mean"] if not others:
            return "mean"
        case ["cls"] if not others:
            return "cls"
        case ["max"] if not others:
            return "max"
    what = f"pooling {', '.join(f'`{name}`' for name in [*chosen, *others]) or '`none`'} is not supported"
    raise UserError(what, where=str(path), hint="supported: one of mean, cls, max")


def _refuse_without_prompt(folder: Path, modules: list[dict[str, Any]]) -> None:
    """Refuse a pooling that leaves a prompt's tokens out: an exported graph cannot know where a prompt ends."""
    paths = [folder / str(m.get("path") or "") / "config.json" for m in modules if _kind(m) == "Pooling"]
    path = next((path for path in paths if path.is_file()), None)
    if path is not None and read_object(path).get("include_prompt") is False:
        raise UserError(
            "`include_prompt: false`: the pooling leaves out the tokens of the model's prompts, and no graph knows "
            "where a prompt ends",
            where=str(path),
            hint="use the model with sentence-transformers alone, or one whose pooling takes the prompt in",
        )


def _read_prompts(settings: Mapping[str, Any], where: str) -> tuple[dict[str, str], str | None]:
    prompts, default = settings.get("prompts") or {}, settings.get("default_prompt_name")
    if not isinstance(prompts, dict) or not all(text is None or isinstance(text, str) for text in prompts.values()):
        raise UnsafeModel("`prompts` are not texts by name", where=where, hint=_AGAIN)
    if default is not None and default not in prompts:
        raise UnsafeModel(
            f"the default prompt `{default}` is not among the model's prompts",
            where=where,
            hint="fix `default_prompt_name`, or set it to null",
        )
    return {str(name): text or "" for name, text in prompts.items()}, default


SIGMOID_NOTE = (
    "a cross-encoder: the model returns the logit; sentence-transformers applies a sigmoid to get the score, as "
    "its settings say"
)


def read_activation(folder: Path, config: Mapping[str, Any]) -> Literal["identity", "sigmoid"]:
    """What makes a score of a cross-encoder's logit, as sentence-transformers tells it.

    Raises:
        UserError: another function than those two.
    """
    settings = read_object(folder / SETTINGS) if (folder / SETTINGS).is_file() else {}
    own = config.get("sentence_transformers")
    is_cross_encoder = settings.get("model_type") == "CrossEncoder"
    named = (
        (settings.get("activation_fn") if is_cross_encoder else None)
        or (own.get("activation_fn") if isinstance(own, dict) else None)
        or config.get("sbert_ce_default_activation_function")
    )
    if named is None:
        return "sigmoid" if is_cross_encoder else "identity"
    module, _, name = str(named).rpartition(".")
    if not module.startswith("torch.") or name not in _ACTIVATIONS:
        raise UserError(
            f"the activation `{named}` behind the model's logits is not supported",
            where=str(folder),
            hint=f"supported: {', '.join(f'torch.nn.{known}' for known in _ACTIVATIONS)}",
        )
    return _ACTIVATIONS[name]
