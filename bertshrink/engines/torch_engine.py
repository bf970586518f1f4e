"""PyTorch as an engine: a stock checkpoint folder, run without gradients; eager in float32 unless told otherwise.

Pooling stands here, as plain tensor functions, because both the session and training need it. Masked mean as
sentence-transformers computes it: sum(mask * h) / max(sum(mask), 1e-9), then optionally h / max(||h||, 1e-12).
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from bertshrink.engines.torch_options import TorchOptions

if TYPE_CHECKING:
    from bertshrink.engines import Session
    from bertshrink.engines.torch_compile import Forward

SENTENCE = "sentence_embedding"
"""The one output that is no model's own."""


def pool(
    hidden_BLH: torch.Tensor, mask_BL: torch.Tensor, mode: str, normalize: bool, dimension: int | None = None
) -> torch.Tensor:
    """Token vectors (B, L, H) to sentence vectors (B, H), or their first `dimension` numbers.

    `mode` is mean, cls or max. A vector is made one long before it is cut, as sentence-transformers does.
    """
    mask_BL1 = mask_BL.unsqueeze(-1).to(hidden_BLH.dtype)
    if mode == "cls":
        pooled = hidden_BLH[:, 0]
    elif mode == "max":
        pooled = hidden_BLH.masked_fill(mask_BL1 == 0, torch.finfo(hidden_BLH.dtype).min).amax(dim=1)
    else:
        pooled = (hidden_BLH * mask_BL1).sum(dim=1) / mask_BL1.sum(dim=1).clamp(min=1e-9)
    pooled = torch.nn.functional.normalize(pooled, dim=-1) if normalize else pooled
    return pooled if dimension is None else pooled[:, :dimension]


class TorchSession:
    """A model in memory as a session.

    Args:
        model: a transformers model in eval mode.
        outputs: names of the model's outputs, or `sentence_embedding`.
        pooling: what `pool` is told, for `sentence_embedding`.

    """

    def __init__(self, model: Any, outputs: Sequence[str], pooling: tuple[Any, ...] | None) -> None:
        self.model = model
        self.outputs = list(outputs)
        self.pooling = pooling
        self.forward: Forward = self.plain
        self.is_compiled = False
        self.inputs = ["input_ids", "attention_mask"]
        if getattr(model.config, "type_vocab_size", 0) > 0 and model.config.model_type != "distilbert":
            self.inputs.append("token_type_ids")

    def plain(self, given: dict[str, torch.Tensor]) -> list[torch.Tensor]:
        """The forward pass as it is written: tensors on the model's device in and out."""
        out = self.model(**given)
        return [
            pool(out.last_hidden_state, given["attention_mask"], *self.pooling)
            if name == SENTENCE and self.pooling is not None
            else out[name]
            for name in self.outputs
        ]

    def given(self, feeds: dict[str, NDArray[np.generic]]) -> dict[str, torch.Tensor]:
        """The arrays that the model takes, on its device."""
        device = self.model.device
        return {name: torch.from_numpy(feeds[name]).to(device) for name in self.inputs if name in feeds}

    def run(self, feeds: dict[str, NDArray[np.generic]]) -> dict[str, NDArray[np.generic]]:
        """One forward pass; arrays as the engines' protocol says, outputs float32."""
        given = self.given(feeds)
        with torch.inference_mode():
            values = self.forward(given)
        return {name: value.float().cpu().numpy() for name, value in zip(self.outputs, values, strict=True)}

    def describe(self) -> dict[str, Any]:
        """Engine, version, threads, device, precision, attention, inputs and outputs; `compiled` where it is."""
        found = {
            "engine": "torch",
            "version": torch.__version__,
            "threads": torch.get_num_threads(),
            "device": self.model.device.type,
            "precision": str(self.model.dtype).removeprefix("torch."),
            "attention": self.model.config._attn_implementation,
            "inputs": list(self.inputs),
            "outputs": list(self.outputs),
        }
        if self.is_compiled:
            from bertshrink.engines.torch_compile import counts

            found["compiled"] = counts()
        return found


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


def load(path: str, threads: int | None = None, options: dict[str, Any] | None = None) -> Session:
    """Load a checkpoint folder.

    Args:
        path: the folder.
        threads: intra-op threads for the whole process; None leaves PyTorch's default.
        options: `auto_class` (transformers' class name), `outputs`, `pooling` ([mode, normalize, ...] or None), and how
            it runs (see `torch_options`).

    Raises:
        ValueError: an option that PyTorch does not have.
        MissingHere: the device or what compiles for it is not here.

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
    safe: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False, "use_safetensors": True}
    model = auto.from_pretrained(path, **how, **safe).eval().to(asked.device)
    session = TorchSession(model, asked.outputs, asked.pooling)
    if asked.compile is not None:
        from bertshrink.engines.torch_compile import compiled

        session.forward, session.is_compiled = compiled(session.plain, asked.compile, asked.device), True
    if asked.device == "cpu":
        return session
    from bertshrink.engines.torch_cuda import CudaSession

    return CudaSession(session, graphs=asked.cuda_graphs, tf32=asked.tf32)
