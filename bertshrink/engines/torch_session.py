"""A PyTorch model in memory as a session: arrays in, arrays out."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

if TYPE_CHECKING:
    from bertshrink.engines.torch_compile import Forward

SENTENCE = "sentence_embedding"
"""The one output that is not a model's own."""


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
        takes_types = "token_type_ids" in inspect.signature(model.forward).parameters
        if takes_types and getattr(model.config, "type_vocab_size", 0) > 0:
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
        description = {
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

            description["compiled"] = counts()
        return description
