"""Code that repositories bring along, and the stock classes that compute the same: a table, a row for each.

A repository whose config.json has an `auto_map` asks for Python of its own, which never runs here. In the place of the
code below transformers has classes of its own by now, which read the weights under their old names. Its configurations
they do not read: `n_embd`, `model_type: new` and the like. So a row says, setting by setting, what the stock class
calls it, what it may be, and what says nothing about an answer. A setting that no row names is refused.

The rows were read off that code: nomic-ai/nomic-bert-2048, Alibaba-NLP/new-impl (and Snowflake's copy of it), EuroBERT.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bertshrink.model.family import Config

NOT_SET = (None, False)
ANY: tuple[Any, ...] = ()
"""Of `only`: whatever it is, it may be left out, and says nothing about an answer."""

_KINDS = (
    *("Config", "Model", "PreTrainedModel", "ForMaskedLM", "ForPreTraining", "ForSequenceClassification"),
    *("ForTokenClassification", "ForQuestionAnswering", "ForMultipleChoice"),
)
_OF_TASKS = (
    *("id2label", "label2id", "num_labels", "problem_type", "classifier_dropout", "initializer_range"),
    *("bos_token_id", "eos_token_id", "pad_token_id", "tie_word_embeddings", "sentence_transformers"),
    *("sbert_ce_default_activation_function", "vocab_size", "type_vocab_size", "hidden_act"),
)
_SIZES = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "max_position_embeddings")
_JUDGED_LATER = (
    *("is_decoder", "is_encoder_decoder", "add_cross_attention", "pruned_heads", "chunk_size_feed_forward"),
    *("quantization_config", "adapters", "transformers_weights", "attn_implementation", "_attn_implementation"),
)
_SILENT = (
    *("architectures", "auto_map", "model_type", "_name_or_path", "torch_dtype", "dtype", "transformers_version"),
    *("use_cache", "return_dict", "output_attentions", "output_hidden_states", "gradient_checkpointing"),
    *("matryoshka_dimensions", "is_matryoshka", "task_specific_params", "finetuning_task", "export_model_type"),
)


@dataclass(frozen=True)
class RemoteCode:
    """One piece of such code.

    Attributes:
        model_type: as its configurations say it.
        family: the stock class's.
        prefix, stock: what the names of its classes begin with, and those of the stock ones.
        modules: its Python modules, without the configuration's.
        repositories: where it is published; a copy in the model's own repository counts, too.
        renamed: setting -> the stock one's name.
        kept: settings that the stock class has under the same name, besides those that all have.
        only: setting -> the values with which the stock class computes the same; None among them: it may be left out.
        required: settings that must be there, because that code's default is another than the stock class's.
        derived: the settings that follow from several; may raise ValueError with what is not known.
        replaced: those of them that stand in the place of what the configuration says under the same name.
    """

    model_type: str
    family: str
    prefix: str
    stock: str
    modules: tuple[str, ...]
    repositories: tuple[str, ...]
    renamed: Mapping[str, str] = field(default_factory=dict)
    kept: tuple[str, ...] = ()
    only: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    required: tuple[str, ...] = ()
    derived: Callable[[Config], dict[str, Any]] = lambda config: {}
    replaced: tuple[str, ...] = ()

    @property
    def passed_on(self) -> set[str]:
        """Settings that go into the stock configuration as they are."""
        return {*_OF_TASKS, *_SIZES, *_JUDGED_LATER, *self.kept}

    @property
    def silent(self) -> set[str]:
        """Settings that are left out, because no answer depends on them."""
        return {*_SILENT, *(name for name, values in self.only.items() if values == ANY)}

    def has(self, reference: Any) -> bool:
        """Whether an entry of `auto_map` names a class of this code: `ORG/REPO--module.Class`, or `module.Class`."""
        repository, _, path = ("", "", str(reference)) if "--" not in str(reference) else str(reference).partition("--")
        module, _, name = path.rpartition(".")
        known = (*self.modules, *(one.replace("modeling", "configuration") for one in self.modules))
        return repository in ("", *self.repositories) and module in known and self.kind_of(name) is not None

    def kind_of(self, name: str) -> str | None:
        """What a class's name says behind the prefix: `ForMaskedLM`; None: it is none of this code's."""
        kind = name.removeprefix(self.prefix)
        return kind if name.startswith(self.prefix) and kind in _KINDS else None


def _rounded(value: Any, step: Any) -> Any:
    """A size as that code rounds it up."""
    whole = isinstance(value, int) and isinstance(step, int) and step > 0
    return -(-value // step) * step if whole else value


def _plain_rotation(theta: Any) -> dict[str, Any]:
    return {"rope_type": "default", "rope_theta": float(theta)}


_GATES = {"swiglu": "silu", "geglu": "gelu"}
_STEP = 256
"""That code rounds a gated feed-forward's width up to a multiple of it."""
_TRAINED = 2048
"""`max_trained_positions`, where a configuration does not say it."""


def _nomic(config: Config) -> dict[str, Any]:
    """Its rotation is scaled with the text's length beyond what it was trained on: no longer text is read then."""
    rope, trained = config.get("rope_parameters") or {}, config.get("max_trained_positions") or _TRAINED
    kind, theta = rope.get("rope_type", "default"), float(config["rotary_emb_base"])
    if kind not in ("default", "dynamic") or float(rope.get("rope_theta", theta)) != theta:
        raise ValueError(f"`rope_parameters: {rope}` beside `rotary_emb_base: {theta}`")
    lengths = [config.get("n_positions"), config.get("max_position_embeddings")]
    if config.get("rotary_scaling_factor") or kind == "dynamic":
        lengths.append(trained)
    return {
        "vocab_size": _rounded(config["vocab_size"], config.get("pad_vocab_size_multiple", 1)),
        "intermediate_size": _rounded(config.get("n_inner", config.get("intermediate_size")), _STEP),
        "hidden_act": _GATES[config["activation_function"]],
        "max_position_embeddings": min([length for length in lengths if length is not None], default=trained),
        "hidden_dropout_prob": config.get("hidden_dropout_prob", config.get("resid_pdrop", 0.0)),
        "attention_probs_dropout_prob": config.get("attention_probs_dropout_prob", config.get("attn_pdrop", 0.0)),
        "rope_parameters": _plain_rotation(theta),
    }


def _gte(config: Config) -> dict[str, Any]:
    """Fixed NTK scaling by s: frequency i of D is (theta s)^(-2i/D) / s^(2/D), a linear scaling of another theta."""
    theta: float = float(config["rope_theta"])
    scaling, known = config.get("rope_scaling"), config.get("rope_parameters")
    rope = _plain_rotation(theta)
    if scaling is not None:
        kind = scaling.get("type", scaling.get("rope_type")) if isinstance(scaling, Mapping) else None
        if kind != "ntk" or set(scaling) - {"type", "rope_type", "factor"}:
            raise ValueError(f"`rope_scaling: {scaling}`")
        factor = float(scaling["factor"])
        width = config["hidden_size"] // config["num_attention_heads"]
        rope = {"rope_type": "linear", "rope_theta": theta * factor, "factor": factor ** (2 / width)}
    if known is not None and known != rope:
        raise ValueError(f"`rope_parameters: {known}` beside `rope_theta: {config['rope_theta']}`")
    return {"rope_parameters": rope}


def _eurobert(config: Config) -> dict[str, Any]:
    rope, known = _plain_rotation(config["rope_theta"]), config.get("rope_parameters")
    if known is not None and {**known, "rope_theta": float(known.get("rope_theta", 0))} != rope:
        raise ValueError(f"`rope_parameters: {known}` beside `rope_theta: {config['rope_theta']}`")
    return {"rope_parameters": rope}


_GTE = RemoteCode(
    model_type="new",
    family="gte",
    prefix="New",
    stock="Gte",
    modules=("modeling",),
    repositories=("Alibaba-NLP/new-impl",),
    kept=("hidden_dropout_prob", "attention_probs_dropout_prob", "layer_norm_eps"),
    only={
        "rope_theta": ANY,
        "rope_scaling": ANY,
        "rope_parameters": ANY,
        "unpad_inputs": ANY,
        "use_memory_efficient_attention": ANY,
        "layer_norm_type": (None, "layer_norm"),
        "logn_attention_scale": NOT_SET,
        "logn_attention_clip1": NOT_SET,
        "pack_qkv": (None, True),
        "position_embedding_type": (None, "rope"),
    },
    required=(*_SIZES, "vocab_size", "type_vocab_size", "hidden_act", "layer_norm_eps", "rope_theta"),
    derived=_gte,
)

REMOTE_CODE: tuple[RemoteCode, ...] = (
    RemoteCode(
        model_type="nomic_bert",
        family="nomic_bert",
        prefix="NomicBert",
        stock="NomicBert",
        modules=("modeling_hf_nomic_bert",),
        repositories=(
            "nomic-ai/nomic-bert-2048",
            "nomic-ai/nomic-embed-text-v1",
            "nomic-ai/nomic-embed-text-v1-unsupervised",
        ),
        renamed={
            "n_embd": "hidden_size",
            "n_layer": "num_hidden_layers",
            "n_head": "num_attention_heads",
            "layer_norm_epsilon": "layer_norm_eps",
        },
        kept=("layer_norm_eps", "head_dim"),
        only={
            "num_experts": (None, 0),
            "num_shared_experts": (None, 0),
            "moe_every_n_layers": (None, 0, -1),
            **dict.fromkeys(("moe_top_k", "moe_normalize_expert_weights", "moe_resid_pdrop"), ANY),
            **dict.fromkeys(("expert_choice_router", "ffn_div"), ANY),
            **dict.fromkeys(("n_inner", "n_positions", "max_trained_positions", "pad_vocab_size_multiple"), ANY),
            **dict.fromkeys(("rotary_emb_base", "rotary_scaling_factor", "rope_parameters"), ANY),
            **dict.fromkeys(("attn_pdrop", "resid_pdrop", "embd_pdrop", "hidden_dropout_prob"), ANY),
            **dict.fromkeys(("attention_probs_dropout_prob", "dense_seq_output", "add_pooling_layer"), ANY),
            **dict.fromkeys(("use_flash_attn", "use_xentropy", "fused_bias_fc", "fused_dropout_add_ln"), ANY),
            **dict.fromkeys(("summary_activation", "summary_first_dropout", "summary_proj_to_labels"), ANY),
            **dict.fromkeys(("summary_type", "summary_use_proj", "reorder_and_upcast_attn"), ANY),
            "activation_function": tuple(_GATES),
            **dict.fromkeys(("qkv_proj_bias", "mlp_fc1_bias", "mlp_fc2_bias"), (False,)),
            "rotary_emb_fraction": (1.0,),
            "rotary_emb_scale_base": (None,),
            "rotary_emb_interleaved": NOT_SET,
            "rotary_head_dim": NOT_SET,
            **dict.fromkeys(("causal", "prenorm", "parallel_block", "parallel_block_tied_norm"), NOT_SET),
            "use_rms_norm": NOT_SET,
            "scale_attn_weights": (None, True),
            "scale_attn_by_inverse_layer_idx": NOT_SET,
            "tie_word_embeddings": (None, True),
            "num_heads_kv": (None,),
        },
        required=("n_embd", "n_layer", "n_head", "n_inner", "layer_norm_epsilon", "vocab_size", "rotary_emb_base"),
        derived=_nomic,
        replaced=("vocab_size", "max_position_embeddings"),
    ),
    _GTE,
    RemoteCode(
        model_type="gte",
        family="gte",
        prefix="Gte",
        stock="Gte",
        modules=("modeling_hf_alibaba_nlp_gte",),
        repositories=("Snowflake/snowflake-arctic-embed-m-v2.0",),
        kept=_GTE.kept,
        only=_GTE.only,
        required=_GTE.required,
        derived=_gte,
    ),
    RemoteCode(
        model_type="eurobert",
        family="eurobert",
        prefix="EuroBert",
        stock="EuroBert",
        modules=("modeling_eurobert",),
        repositories=("EuroBERT/EuroBERT-210m", "EuroBERT/EuroBERT-610m", "EuroBERT/EuroBERT-2.1B"),
        renamed={"clf_pooling": "classifier_pooling"},
        kept=(
            *("num_key_value_heads", "head_dim", "rms_norm_eps", "attention_bias", "mlp_bias", "attention_dropout"),
            *("mask_token_id", "classifier_pooling"),
        ),
        only={
            **dict.fromkeys(("bos_token", "eos_token", "pad_token", "mask_token", "hidden_dropout"), ANY),
            **dict.fromkeys(("rope_theta", "rope_parameters"), ANY),
            "rope_scaling": (None,),
            "pretraining_tp": (None, 1),
            "is_causal": NOT_SET,
        },
        required=(*_SIZES, "vocab_size", "hidden_act", "rms_norm_eps", "rope_theta"),
        derived=_eurobert,
    ),
)

OTHER_CODE: Mapping[str, tuple[str, str]] = {
    "modeling_lora.XLMRobertaLoRA": (
        "its adapters (LoRA) change the vectors with the purpose of a text, and the stock class holds none of them",
        "take jinaai/jina-embeddings-v3-hf, the same model for the stock class: merge the adapter that you need with "
        "PEFT, and save the result",
    ),
    "modeling_bert.JinaBertModel": (
        "it computes another network than a stock BERT: positions by ALiBi, a gated feed-forward",
        "transformers has no class for it; give an ONNX file of it, which `quantize`, `bench` and `gate` take",
    ),
}
"""A class of code that often asks to run, without its repository -> why no stock class serves, and what does."""
