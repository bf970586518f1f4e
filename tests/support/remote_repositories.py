"""Repositories that ask to run their own code, tiny: configurations as published, weights under their old names.

What that code computes is written here once more, from its formulas and the old names alone, so that the stock classes
are compared with something that transformers did not write.
"""

import json
import math

import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from tests.support.tiny import tiny_config, tiny_encoder

TRAP = "raise SystemExit('the code of the repository was run')\n"

_SIZES = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size")
_NTK = 8.0


def _nomic(config):
    return {
        "activation_function": "swiglu",
        "architectures": ["NomicBertModel"],
        "attn_pdrop": 0.0,
        "auto_map": {
            "AutoConfig": "nomic-ai/nomic-bert-2048--configuration_hf_nomic_bert.NomicBertConfig",
            "AutoModel": "nomic-ai/nomic-bert-2048--modeling_hf_nomic_bert.NomicBertModel",
            "AutoModelForMaskedLM": "nomic-ai/nomic-bert-2048--modeling_hf_nomic_bert.NomicBertForPreTraining",
        },
        "causal": False,
        "dense_seq_output": True,
        "embd_pdrop": 0.0,
        "fused_bias_fc": True,
        "fused_dropout_add_ln": True,
        "initializer_range": 0.02,
        "layer_norm_epsilon": 1e-12,
        "max_trained_positions": 2048,
        "mlp_fc1_bias": False,
        "mlp_fc2_bias": False,
        "model_type": "nomic_bert",
        "n_embd": config.hidden_size,
        "n_head": config.num_attention_heads,
        "n_inner": 200,  # which its code rounds up to 256
        "n_layer": config.num_hidden_layers,
        "n_positions": 8192,
        "pad_vocab_size_multiple": 1,
        "parallel_block": False,
        "prenorm": False,
        "qkv_proj_bias": False,
        "resid_pdrop": 0.0,
        "rotary_emb_base": 500,
        "rotary_emb_fraction": 1.0,
        "rotary_emb_interleaved": False,
        "rotary_emb_scale_base": None,
        "rotary_scaling_factor": None,
        "scale_attn_weights": True,
        "summary_type": "cls_index",
        "torch_dtype": "float32",
        "transformers_version": "4.34.0",
        "type_vocab_size": 2,
        "use_cache": True,
        "use_flash_attn": True,
        "use_rms_norm": False,
        "use_xentropy": True,
        "vocab_size": config.vocab_size,
    }


def _gte(config, **more):
    return {name: getattr(config, name) for name in _SIZES} | {
        "architectures": ["NewModel"],
        "attention_probs_dropout_prob": 0.0,
        "auto_map": {
            "AutoConfig": "Alibaba-NLP/new-impl--configuration.NewConfig",
            "AutoModel": "Alibaba-NLP/new-impl--modeling.NewModel",
            "AutoModelForMultipleChoice": "Alibaba-NLP/new-impl--modeling.NewForMultipleChoice",
        },
        "classifier_dropout": 0.0,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "id2label": {"0": "LABEL_0"},
        "label2id": {"LABEL_0": 0},
        "layer_norm_eps": 1e-12,
        "layer_norm_type": "layer_norm",
        "logn_attention_clip1": False,
        "logn_attention_scale": False,
        "max_position_embeddings": 8192,
        "model_type": "new",
        "pack_qkv": True,
        "pad_token_id": 1,
        "position_embedding_type": "rope",
        "rope_scaling": {"factor": _NTK, "type": "ntk"},
        "rope_theta": 20000,
        "type_vocab_size": config.type_vocab_size,
        "unpad_inputs": False,
        "use_memory_efficient_attention": False,
        **more,
    }


def _arctic(config):
    return _gte(
        config,
        architectures=["GteModel"],
        auto_map={
            "AutoConfig": "configuration_hf_alibaba_nlp_gte.GteConfig",
            "AutoModel": "modeling_hf_alibaba_nlp_gte.GteModel",
        },
        model_type="gte",
        rope_scaling=None,
        rope_theta=160000,
        unpad_inputs="true",
        use_memory_efficient_attention="true",
    )


def _eurobert(config):
    return {name: getattr(config, name) for name in _SIZES} | {
        "architectures": ["EuroBertForMaskedLM"],
        "auto_map": {
            "AutoConfig": "configuration_eurobert.EuroBertConfig",
            "AutoModel": "modeling_eurobert.EuroBertModel",
            "AutoModelForPreTraining": "modeling_eurobert.EuroBertPreTrainedModel",
            "AutoModelForMaskedLM": "modeling_eurobert.EuroBertForMaskedLM",
        },
        "attention_bias": False,
        "bos_token": "<|begin_of_text|>",
        "clf_pooling": "late",
        "hidden_act": "silu",
        "hidden_dropout": 0.0,
        "is_decoder": False,
        "max_position_embeddings": 8192,
        "model_type": "eurobert",
        "num_key_value_heads": 2,
        "pad_token_id": config.pad_token_id,
        "pretraining_tp": 1,
        "rms_norm_eps": 1e-05,
        "rope_scaling": None,
        "rope_theta": 250000,
        "tie_word_embeddings": False,
    }


_ROPE = {"rope_type": "default"}
_SCALED = {"rope_type": "linear", "rope_theta": 20000 * _NTK, "factor": _NTK ** (2 / 8)}
REPOSITORIES = {
    "nomic": ("nomic_bert", _nomic, {"intermediate_size": 256, "rope_parameters": {**_ROPE, "rope_theta": 500.0}}),
    "gte": ("gte", _gte, {"rope_parameters": _SCALED}),
    "gte-base-en": ("gte", _gte, {"rope_parameters": _SCALED, "type_vocab_size": 0}),
    "arctic": ("gte", _arctic, {"rope_parameters": {**_ROPE, "rope_theta": 160000.0}}),
    "eurobert": (
        "eurobert",
        _eurobert,
        {"num_key_value_heads": 2, "rope_parameters": {**_ROPE, "rope_theta": 250000.0}},
    ),
}
"""Name -> the stock family, its configuration as published, and what a tiny stock model has in place of defaults."""


def repository(folder, name, task="embedding", **more):
    """Write one of them into a folder, with a trap for whoever runs its code; returns the stock encoder of its weights.

    Args:
        more: settings of its config.json; `...`: left out.
    """
    family, published, own = REPOSITORIES[name]
    encoder = tiny_encoder(family, task, num_hidden_layers=2, **own)
    encoder.save(folder)
    _write(folder, published(encoder.model.config) | more)
    return encoder


def only_config(folder, name, **more):
    """Write its config.json alone, for what is refused by that; arguments as of `repository`."""
    family, published, own = REPOSITORIES[name]
    _write(folder, published(tiny_config(family, num_hidden_layers=2, **own)) | more)


def _write(folder, config):
    (folder / "config.json").write_text(json.dumps({key: value for key, value in config.items() if value is not ...}))
    for value in config["auto_map"].values() if isinstance(config["auto_map"], dict) else ():
        (folder / f"{str(value).rpartition('--')[2].partition('.')[0]}.py").write_text(TRAP)


def by_its_own_code(folder, ids):
    """(L, H) what the code of a repository (not EuroBERT's) gives for one text, by its own configuration and names."""
    weights, config = load_file(folder / "model.safetensors"), json.loads((folder / "config.json").read_text())
    is_nomic = "n_embd" in config
    heads = config["n_head"] if is_nomic else config["num_attention_heads"]
    hidden = config["n_embd"] if is_nomic else config["hidden_size"]
    width, length = hidden // heads, len(ids)
    steps = torch.arange(0, width, 2) / width
    if is_nomic:
        frequencies = config["rotary_emb_base"] ** -steps
    else:
        scale = (config["rope_scaling"] or {"factor": 1.0})["factor"]
        frequencies = (config["rope_theta"] * scale) ** -steps / scale ** (2 / width)
    angles = torch.outer(torch.arange(length), frequencies).repeat(1, 2)

    def dense(x, name):
        return F.linear(x, weights[f"{name}.weight"], weights.get(f"{name}.bias"))

    def norm(x, name):
        return F.layer_norm(x, (hidden,), weights[f"{name}.weight"], weights[f"{name}.bias"], 1e-12)

    def turned(x):
        first, second = x.chunk(2, dim=-1)
        return x * angles.cos() + torch.cat((-second, first), dim=-1) * angles.sin()

    x = weights["embeddings.word_embeddings.weight"][ids] + weights["embeddings.token_type_embeddings.weight"][0]
    x = norm(x, "emb_ln" if is_nomic else "embeddings.LayerNorm")
    names = ("encoder.layers", "attn.Wqkv", "attn.out_proj", "norm1", "norm2") if is_nomic else None
    layers, qkv, mix, norm1, norm2 = names or (
        *("encoder.layer", "attention.qkv_proj", "attention.o_proj", "attn_ln", "mlp_ln"),
    )
    for i in range(2):
        at = f"{layers}.{i}"
        query, key, value = dense(x, f"{at}.{qkv}").view(length, 3, heads, width).permute(1, 2, 0, 3)
        scores = turned(query) @ turned(key).transpose(1, 2) / math.sqrt(width)
        mixed = (scores.softmax(-1) @ value).transpose(0, 1).reshape(length, hidden)
        x = norm(x + dense(mixed, f"{at}.{mix}"), f"{at}.{norm1}")
        if is_nomic:
            inner = dense(x, f"{at}.mlp.fc11") * F.silu(dense(x, f"{at}.mlp.fc12"))
            x = norm(x + dense(inner, f"{at}.mlp.fc2"), f"{at}.{norm2}")
        else:
            up, gate = dense(x, f"{at}.mlp.up_gate_proj").chunk(2, dim=-1)
            x = norm(x + dense(F.gelu(gate) * up, f"{at}.mlp.down_proj"), f"{at}.{norm2}")
    return x


def write_vectors(path, encoder, texts, scale=1.0):
    """Write the vectors of an encoder as reference vectors; returns the file."""
    rows = encoder.predict(encoder.tokenize(texts))
    vectors = [(scale * row["sentence_embedding"]).tolist() for row in rows]
    path.write_text(json.dumps({"texts": list(texts), "vectors": vectors}))
    return path
