"""PyTorch as an engine: a stock checkpoint folder, run in float32 (or bfloat16) without gradients.

Pooling stands here, as plain tensor functions, because both the session and training need it. Masked mean as
sentence-transformers computes it: sum(mask * h) / max(sum(mask), 1e-9), then optionally h / max(||h||, 1e-12).
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray


def pool(hidden_BLH: torch.Tensor, mask_BL: torch.Tensor, mode: str, normalize: bool) -> torch.Tensor:
    """Token vectors (B, L, H) to sentence vectors (B, H); `mode` is mean, cls or max."""
    mask_BL1 = mask_BL.unsqueeze(-1).to(hidden_BLH.dtype)
    if mode == "cls":
        pooled = hidden_BLH[:, 0]
    elif mode == "max":
        pooled = hidden_BLH.masked_fill(mask_BL1 == 0, torch.finfo(hidden_BLH.dtype).min).amax(dim=1)
    else:
        pooled = (hidden_BLH * mask_BL1).sum(dim=1) / mask_BL1.sum(dim=1).clamp(min=1e-9)
    return torch.nn.functional.normalize(pooled, dim=-1) if normalize else pooled


class TorchSession:
    """A model in memory as a session.

    Args:
        model: a transformers model in eval mode.
        outputs: names of the model's outputs, or `sentence_embedding`.
        pooling: (mode, normalize) where the output is `sentence_embedding`.

    """

    def __init__(self, model: Any, outputs: Sequence[str], pooling: tuple[str, bool] | None) -> None:
        self.model = model
        self.outputs = list(outputs)
        self.pooling = pooling
        self.inputs = ["input_ids", "attention_mask"]
        if getattr(model.config, "type_vocab_size", 0) > 0 and model.config.model_type != "distilbert":
            self.inputs.append("token_type_ids")

    def run(self, feeds: dict[str, NDArray[np.generic]]) -> dict[str, NDArray[np.generic]]:
        """One forward pass; arrays as the engines' protocol says, outputs float32."""
        device = self.model.device
        given = {name: torch.from_numpy(feeds[name]).to(device) for name in self.inputs if name in feeds}
        with torch.inference_mode():
            out = self.model(**given)
            if self.pooling is not None:
                values = [pool(out.last_hidden_state, given["attention_mask"], *self.pooling)]
            else:
                values = [out[name] for name in self.outputs]
        return {name: value.float().cpu().numpy() for name, value in zip(self.outputs, values, strict=True)}

    def describe(self) -> dict[str, Any]:
        """Engine, version, threads, precision, inputs and outputs."""
        return {
            "engine": "torch",
            "version": torch.__version__,
            "threads": torch.get_num_threads(),
            "precision": str(self.model.dtype).removeprefix("torch."),
            "inputs": list(self.inputs),
            "outputs": list(self.outputs),
        }


def prepare(path: str, options: dict[str, Any] | None = None) -> None:
    """Import transformers and the model's own module, which `from_pretrained` would import while it loads."""
    import transformers

    config = transformers.AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    importlib.import_module(type(config).__module__.replace(".configuration_", ".modeling_"))


def load(path: str, threads: int | None = None, options: dict[str, Any] | None = None) -> TorchSession:
    """Load a checkpoint folder.

    Args:
        path: the folder.
        threads: intra-op threads for the whole process; None leaves PyTorch's default.
        options: `auto_class` (transformers' class name), `outputs`, `pooling` ([mode, normalize] or None), and `dtype`
            (`float32`, the default, or `bfloat16`).

    """
    import transformers

    options = options or {}
    if threads is not None:
        torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    auto = getattr(transformers, options.get("auto_class", "AutoModel"))
    dtype = getattr(torch, options.get("dtype", "float32"))
    safe: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False, "use_safetensors": True}
    model = auto.from_pretrained(path, dtype=dtype, **safe).eval()
    pooling = options.get("pooling")
    return TorchSession(model, options.get("outputs", ["logits"]), tuple(pooling) if pooling else None)
