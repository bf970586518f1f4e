"""What a sentence-transformers folder says beside its transformer, read as that library reads it, or refused by name.

    modules.json                       which modules follow each other; a Pooling makes a sentence encoder, a
                                       SpladePooling a sparse one, a class with a head alone a cross-encoder (one or
                                       more scores for a pair)
    1_Pooling/, 2_Dense/ ...           how token vectors become the sentence's: see `pooling`
    sentence_bert_config.json          (or `sentence_roberta_config.json` ...) the longest input, small letters
    config_sentence_transformers.json  the kind of model, `truncate_dim`, `max_active_dims`, prompts, how
                                       vectors are compared, the activation of a cross-encoder

    kept    pooling and what is behind it, `truncate_dim` (vectors are cut as its last step), `max_active_dims` (all
            but the largest numbers of a sparse vector become 0, likewise), `max_seq_length`, `do_lower_case` (the
            tokenizer then does it), the default prompt (put before every text), `similarity_fn_name` (vectors are
            judged by it), a sigmoid at the end (told: outputs are logits, as the class gives them, and CrossEncoder
            makes scores of them)
    refused every other module and setting: they decide the vectors

The files themselves travel along (see `travel`). Standard library only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast, get_args

from bertshrink.errors import UnsafeModel, UserError
from bertshrink.files.json_files import read_json, read_object
from bertshrink.model.folder.pooling import (
    AGAIN,
    SPLADE,
    SUPPORTED,
    TRANSFORMERS,
    Pooling,
    Similarity,
    activation_at,
    kind_of,
    read_pooling,
    read_splade,
)

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

_FREE = ("max_seq_length", "do_lower_case", "unpad_inputs", "modality_config", "module_output_name", "transformer_task")
"""Settings of the Transformer module that are read below, or change how fast it runs only."""
_OF_MODELS = ("torch_dtype", "dtype", "attn_implementation", "use_safetensors", "device_map", "low_cpu_mem_usage")
_OF_TOKENIZERS = ("model_max_length", "use_fast")
LENGTH_BY_TOKENIZER = ("tokenizer_args", "processor_kwargs")
"""Keys of what is handed to the tokenizer, `model_max_length` among it: that library reads the older one first."""
_KEYWORDS: dict[str, tuple[str, ...]] = {
    "model_args": _OF_MODELS,
    "model_kwargs": _OF_MODELS,
    "tokenizer_args": _OF_TOKENIZERS,
    "processor_kwargs": _OF_TOKENIZERS,
    "config_args": (),
    "config_kwargs": (),
}
"""What it hands to transformers -> keys that change no output in float32."""
_OUTPUTS = {
    "encoder": ("last_hidden_state", "token_embeddings", "feature-extraction"),
    "sparse": ("logits", "token_embeddings", "fill-mask"),
    "cross-encoder": ("logits", "scores", "sequence-classification"),
}
"""Kind of model -> what its Transformer takes of the stock class's answer, what it calls that, and its task."""
_ACTIVATIONS: dict[str, Literal["identity", "sigmoid"]] = {"Identity": "identity", "Sigmoid": "sigmoid"}
_OWN = "sentence_transformers."
"""Where the library's own modules are imported from."""


Kind = Literal["encoder", "sparse", "cross-encoder"]

_USUAL: dict[Kind, Similarity] = {"encoder": "cosine", "sparse": "dot"}
_OF_TOKENS = ("maxsim", "meanmaxsim")
"""Of models with a vector for each token: that library takes the usual one where another kind of model names them."""


@dataclass(frozen=True)
class Sentence:
    """What a sentence-transformers folder says.

    Attributes:
        kind: a sentence encoder, a sparse one or a cross-encoder.
        pooling: of the first two.
        lower_case: whether texts are read in small letters, whatever the tokenizer does.
        prompts: every prompt by its name.
        default: the name of the prompt that is put before every text; None: none is.
        similarity: how its vectors are compared; None: by cosines, of a sparse encoder by products.
        leaves_prompt_out: whether no vector is made of a prompt's tokens.
    """

    kind: Kind
    pooling: Pooling | None = None
    lower_case: bool = False
    prompts: Mapping[str, str] | None = None
    default: str | None = None
    similarity: Similarity | None = None
    leaves_prompt_out: bool = False

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
        if self.pooling is not None and self.pooling.active is not None:
            notes.append(
                f"at most {self.pooling.active} numbers of a vector are not 0 (`max_active_dims`), as of every model "
                "made from it"
            )
        if self.similarity not in (None, _USUAL.get(self.kind)):
            notes.append(
                f"its vectors are compared by `{self.similarity}` (`similarity_fn_name`), in evaluation too; training "
                "brings vectors together by cosines all the same"
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
        if self.leaves_prompt_out:
            whose = "those of the default prompt" if self.prompt else "no tokens"
            notes.append(
                f"the pooling leaves out a prompt's tokens (`include_prompt: false`): a file for an engine leaves out "
                f"{whose}, whatever a text begins with; give texts with another prompt to sentence-transformers"
            )
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
        raise UnsafeModel(f"`{MODULES}` is not a list of modules", where=str(path), hint=AGAIN)
    for module in listed:
        place = str(module.get("path") or "")
        if not (folder / place).resolve().is_relative_to(folder.resolve()):
            raise UnsafeModel(f"`{MODULES}` points outside the model's folder: `{place}`", where=str(path), hint=AGAIN)
        if kind_of(module) in TRANSFORMERS and place:
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
        _refuse_modules(modules, kind, where)
    pooling, dimension = None, _read_number(settings, "truncate_dim", str(folder / SETTINGS))
    if kind == "sparse":
        active = _read_number(settings, "max_active_dims", str(folder / SETTINGS))
        pooling = replace(SPLADE, active=active) if has_modules_inside else read_splade(folder, modules, active, where)
    if kind == "encoder":
        pooling = (
            Pooling(dimension=dimension) if has_modules_inside else read_pooling(folder, modules, dimension, where)
        )
    prompts, default = _read_prompts(settings, str(folder / SETTINGS))
    leaves_out = False
    if pooling is not None and any(prompts.values()):
        leaves_out = _leaves_prompts_out(folder, modules)
    similarity = _read_similarity(settings, str(folder / SETTINGS)) if pooling is not None else None
    return Sentence(kind, pooling, lower_case, prompts, default, similarity, leaves_out)


_CHAINS: dict[str, tuple[str, ...]] = {
    "encoder": ("Transformer", "Pooling", "Dense", "LayerNorm", "Normalize", "Dropout"),
    "sparse": (*TRANSFORMERS, "SpladePooling"),
    "cross-encoder": ("Transformer",),
}
"""Kind of model -> the modules that it may have."""
_HINTS = {
    "encoder": SUPPORTED,
    "sparse": "supported in a sparse encoder: a Transformer or MLMTransformer, then SpladePooling",
    "cross-encoder": "a cross-encoder is a Transformer with its own head, and nothing after it",
}


def _kind_of_model(
    settings: Mapping[str, Any], modules: list[dict[str, Any]], config: Mapping[str, Any], where: str
) -> Kind:
    said = settings.get("model_type")
    kinds = [kind_of(module) for module in modules]
    has_head = any(str(name).endswith("ForSequenceClassification") for name in config.get("architectures") or [])
    if said == "CrossEncoder" or (said is None and has_head and kinds == ["Transformer"]):
        if kinds == ["Transformer"] and not has_head:
            raise UserError(
                "a cross-encoder whose class, `architectures` in config.json, has no head for scores",
                where=where,
                hint="give the model as sentence-transformers saved it after its training",
            )
        return "cross-encoder"
    if said == "SparseEncoder":
        return "sparse"
    if said not in (None, "SentenceTransformer"):
        raise UserError(
            f"the model is a `{said}` of sentence-transformers, which does not return one plain vector per text",
            where=where,
            hint="known kinds: SentenceTransformer, SparseEncoder, CrossEncoder",
        )
    return "encoder"


def _refuse_modules(modules: list[dict[str, Any]], kind: Kind, where: str) -> None:
    """Refuse modules that the kind of model does not have, and code of the model's own."""
    for module in modules:
        named = str(module.get("type", ""))
        if not named.startswith(_OWN):
            raise UnsafeModel(
                f"the model asks to run its own code (`{named}` in {MODULES}); bertshrink never does that",
                where=where,
                hint=_HINTS[kind],
            )
        if kind_of(module) not in _CHAINS[kind]:
            raise UserError(
                f"the sentence-transformers module `{kind_of(module)}` is not supported",
                where=where,
                hint=_HINTS[kind],
            )


def _read_transformer(folder: Path, kind: Kind) -> bool:
    """Prove the Transformer module's settings; returns whether it reads small letters."""
    path, said = transformer_settings(folder)
    if path is None:
        return False
    hint = "save the model with the default of this setting, or use it with sentence-transformers alone"
    task, output = _OUTPUTS[kind], said.get("module_output_name")
    methods = said.get("modality_config") or {"text": {"method": "forward", "method_output_name": task[0]}}
    text = methods.get("text") if isinstance(methods, dict) else None
    if text != {"method": "forward", "method_output_name": task[0]} or output not in (None, task[1]):
        what = f"the Transformer module gives `{output}` of `{text}`, where `{task[1]}` of `{task[0]}` is supported"
        raise UserError(what, where=str(path), hint=hint)
    other = next((name for name in methods if name != "text"), None)
    if other is not None:
        what = f"the Transformer module reads `{other}` (`modality_config`), through which texts may go, too"
        raise UserError(what, where=str(path), hint=hint)
    if said.get("transformer_task") not in (None, task[2]):
        what = f"the Transformer module is for `{said['transformer_task']}`, where `{task[2]}` is supported"
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


def transformer_settings(folder: Path) -> tuple[Path | None, dict[str, Any]]:
    """Where the Transformer module's settings are, and what they say; (None, {}) where there are none.

    Of several files that library reads the first that says something.
    """
    for name in OF_TRANSFORMER:
        path = folder / name
        if path.is_file() and (said := read_object(path)):
            return path, said
    return None, {}


def own_length(folder: Path) -> int | None:
    """The longest input that the Transformer module's settings say; None: nothing.

    What they hand to the tokenizer stands before `max_seq_length`.
    """
    _, said = transformer_settings(folder)
    handed = [said.get(key) for key in LENGTH_BY_TOKENIZER]
    lengths = [one.get("model_max_length") for one in handed if isinstance(one, dict)]
    return next((value for value in (*lengths, said.get("max_seq_length")) if type(value) is int and value > 0), None)


def _read_similarity(settings: Mapping[str, Any], where: str) -> Similarity | None:
    named = settings.get("similarity_fn_name")
    if named in (None, *_OF_TOKENS):
        return None
    if named not in get_args(Similarity):
        what = f"`similarity_fn_name` is `{named}`, which is not how sentence-transformers compares vectors"
        raise UserError(what, where=where, hint=f"known: {', '.join(get_args(Similarity))}; null is the usual one")
    return cast("Similarity", named)


def _read_number(settings: Mapping[str, Any], key: str, where: str) -> int | None:
    number = settings.get(key)
    if number is None or (isinstance(number, int) and not isinstance(number, bool) and number > 0):
        return number
    what = f"`{key}` is `{number}`, which is not a number of dimensions"
    raise UserError(what, where=where, hint="fix it, or set it to null")


def _leaves_prompts_out(folder: Path, modules: list[dict[str, Any]]) -> bool:
    """Whether the pooling leaves a prompt's tokens out."""
    paths = [folder / str(m.get("path") or "") / "config.json" for m in modules if kind_of(m) == "Pooling"]
    path = next((path for path in paths if path.is_file()), None)
    return path is not None and read_object(path).get("include_prompt") is False


def _read_prompts(settings: Mapping[str, Any], where: str) -> tuple[dict[str, str], str | None]:
    prompts, default = settings.get("prompts") or {}, settings.get("default_prompt_name")
    if not isinstance(prompts, dict) or not all(text is None or isinstance(text, str) for text in prompts.values()):
        raise UnsafeModel("`prompts` are not texts by name", where=where, hint=AGAIN)
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
OF_SCORES = ("sentence_transformers", "sbert_ce_default_activation_function")
"""The keys of config.json that may name what makes a score; of version 4 on, and before."""


def read_activation(folder: Path, config: Mapping[str, Any], *, is_score: bool) -> Literal["identity", "sigmoid"]:
    """What makes a score of each of a cross-encoder's logits, as sentence-transformers tells it.

    Args:
        is_score: whether there is one logit: then a sigmoid is what that library takes where nothing is said.

    Raises:
        UserError: another function than those two.
    """
    settings = read_object(folder / SETTINGS) if (folder / SETTINGS).is_file() else {}
    own = config.get(OF_SCORES[0])
    is_cross_encoder = settings.get("model_type") == "CrossEncoder"
    named = (
        (settings.get("activation_fn") if is_cross_encoder else None)
        or (own.get("activation_fn") if isinstance(own, dict) else None)
        or config.get(OF_SCORES[1])
    )
    if named is None:
        return "sigmoid" if is_cross_encoder and is_score else "identity"
    name = activation_at(named, tuple(_ACTIVATIONS))
    if name is None:
        raise UserError(
            f"the activation `{named}` behind the model's logits is not supported",
            where=str(folder),
            hint=f"supported: {', '.join(f'torch.nn.{known}' for known in _ACTIVATIONS)}",
        )
    return _ACTIVATIONS[name]
