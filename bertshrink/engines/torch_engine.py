"""PyTorch as an engine: a stock checkpoint folder, run without gradients; eager in float32 unless told otherwise.

Pooling is here, as plain tensor functions, because both the session and training need it. Masked mean as
sentence-transformers computes it: sum(mask * h) / max(sum(mask), 1e-9), then optionally h / max(||h||, 1e-12). Dense
layers behind it are in `sentence_layers`.
"""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from bertshrink.engines.sentence_layers import load as load_layers
from bertshrink.engines.torch_options import TorchOptions
from bertshrink.engines.torch_session import TorchSession

if TYPE_CHECKING:
    from bertshrink.engines import Session


def prepare(path: str, options: dict[str, Any] | None = None) -> None:
    """Import transformers and the model's own module, which `from_pretrained` would import while it loads.

    A GPU's libraries and context, which every process pays once whatever the model, belong here too.
    """
    import transformers

    config = transformers.AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    importlib.import_module(type(config).__module__.replace(".configuration_", ".modeling_"))
    if TorchOptions.read(options).device == "cuda":
        from bertshrink.engines.torch_cuda import wake

        wake()


def load_renamed(auto: Any, path: str, words: str, **how: Any) -> Any:
    """`auto.from_pretrained` of a folder whose stored names may have words in front, such as `module.`.

    transformers keeps such a renaming and undoes it when it saves; here it is forgotten once the weights are loaded.
    """
    mapping = {f"^{re.escape(words)}": ""} if words else None
    loaded = auto.from_pretrained(path, use_safetensors=True, key_mapping=mapping, **how)
    if mapping is not None:
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        model._weight_conversions = [
            one for one in model._weight_conversions if not set(mapping) & set(getattr(one, "source_patterns", ()))
        ]
    return loaded


def load(path: str, threads: int | None = None, options: dict[str, Any] | None = None) -> Session:
    """Load a checkpoint folder.

    Args:
        threads: intra-op threads for the whole process; None leaves PyTorch's default.
        options: `auto_class` (transformers' class name), `outputs`, `pooling` ([mode, normalize, ...] or None),
            `layers` behind it (see `sentence_layers.build`), `words` in front of stored names, and how it runs (see
            `torch_options`).

    Raises:
        ValueError: an option that PyTorch does not have.
        EngineUnavailable: the device or what compiles for it is not here.
    """
    import transformers

    asked = TorchOptions.read(options)
    if threads is not None:
        torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    auto = getattr(transformers, asked.auto_class)
    how: dict[str, Any] = {"dtype": getattr(torch, asked.dtype)}
    if asked.attention is not None:
        how["attn_implementation"] = asked.attention
    safe: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    model = load_renamed(auto, path, asked.words, **how, **safe).eval().to(asked.device)
    layers = load_layers(asked.layers, Path(path)).to(device=asked.device, dtype=how["dtype"])
    session = TorchSession(model, asked.outputs, asked.pooling, layers)
    if asked.compile is not None:
        from bertshrink.engines.torch_compile import compiled

        session.forward, session.is_compiled = compiled(session.plain, asked.compile, asked.device), True
    if asked.device == "cpu":
        return session
    from bertshrink.engines.torch_cuda import CudaSession

    return CudaSession(session, graphs=asked.cuda_graphs, tf32=asked.tf32)
