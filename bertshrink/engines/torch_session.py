"""A PyTorch model in memory as a session: arrays in, arrays out."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

if TYPE_CHECKING:
    from bertshrink.engines.torch_compile import Forward

SENTENCE = "sentence_embedding"
"""The one output that is not a model's own."""


def of_tokens(out: Any) -> torch.Tensor:
    """What a model says of each token: its head's logits (B, L, V), or the last hidden states (B, L, H)."""
    values: torch.Tensor = out["logits"] if "logits" in out else out["last_hidden_state"]
    return values


def pool(
    hidden_BLH: torch.Tensor,
    mask_BL: torch.Tensor,
    mode: str | Sequence[str],
    normalize: bool,
    dimension: int | None = None,
    skip: int = 0,
    active: int | None = None,
    *,
    layers: Iterable[torch.nn.Module] = (),
) -> torch.Tensor:
    """Token vectors (B, L, H) to sentence vectors (B, O), or their first `dimension` numbers.

    Args:
        mode: mean, cls, max, mean_sqrt_len_tokens, weightedmean or lasttoken; of several the vectors are joined. Of
            logits: splade_max or splade_sum, each perhaps with _log1p.
        normalize: whether a vector is made one long, before it is cut, as sentence-transformers does.
        skip: how many tokens at the start are left out.
        active: how many numbers of a vector stay at most, those farthest from 0; None: all.
        layers: what is between (see `sentence_layers`).
    """
    modes = (mode,) if isinstance(mode, str) else mode
    parts = [_pooled(hidden_BLH, mask_BL, one, skip) for one in modes]
    pooled = parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)
    for layer in layers:
        pooled = layer(pooled)
    pooled = torch.nn.functional.normalize(pooled, dim=-1) if normalize else pooled
    pooled = pooled if dimension is None else pooled[:, :dimension]
    if active is None or active >= pooled.shape[-1]:
        return pooled
    places = pooled.abs().topk(active, dim=-1).indices
    return torch.zeros_like(pooled).scatter(-1, places, pooled.gather(-1, places))


def _pooled(hidden_BLH: torch.Tensor, mask_BL: torch.Tensor, mode: str, skip: int) -> torch.Tensor:
    """(B, H) by one mode. Tokens are numbered 1, 2, ... behind padding, as sentence-transformers does."""
    if mode == "cls" and not skip:
        return hidden_BLH[:, 0]
    kept_BL = mask_BL * (mask_BL.cumsum(dim=1) > skip) if skip else mask_BL
    if mode == "cls":
        kept_BL = torch.where(kept_BL.sum(dim=1, keepdim=True) == 0, mask_BL, kept_BL)
        first_BL1 = (kept_BL * (kept_BL.cumsum(dim=1) == 1)).unsqueeze(-1)
        return (hidden_BLH * first_BL1.to(hidden_BLH.dtype)).sum(dim=1)
    mask_BL1 = kept_BL.unsqueeze(-1).to(hidden_BLH.dtype)
    if mode.startswith("splade"):
        return _sparse(hidden_BLH * mask_BL1, mode)
    if mode == "max":
        return hidden_BLH.masked_fill(mask_BL1 == 0, torch.finfo(hidden_BLH.dtype).min).amax(dim=1)
    if mode in ("mean", "mean_sqrt_len_tokens"):
        number_B1 = mask_BL1.sum(dim=1).clamp(min=1e-9)
        return (hidden_BLH * mask_BL1).sum(dim=1) / (number_B1 if mode == "mean" else number_B1.sqrt())
    if mode not in ("weightedmean", "lasttoken"):
        raise ValueError(f"there is no pooling `{mode}`")
    mask_BL1 = kept_BL.unsqueeze(-1).to(torch.float32)  # sums of places are too large for 16 bits
    place_BL1 = mask_BL.unsqueeze(-1).to(torch.float32).cumsum(dim=1) * mask_BL1
    if mode == "lasttoken":
        weight_BL1 = (place_BL1 == place_BL1.amax(dim=1, keepdim=True)).to(torch.float32) * mask_BL1
    else:
        weight_BL1 = place_BL1 / place_BL1.sum(dim=1, keepdim=True).clamp(min=1e-9)
    return (hidden_BLH * weight_BL1).sum(dim=1).to(hidden_BLH.dtype)


def _sparse(logits_BLV: torch.Tensor, mode: str) -> torch.Tensor:
    """(B, V) log(1 + relu(logit)), the largest or the sum of the tokens', from logits that are 0 at padding."""
    number = 2 if mode.endswith("_log1p") else 1

    def bent(values: torch.Tensor) -> torch.Tensor:
        values = values.relu()
        for _ in range(number):
            values = values.log1p()
        return values

    if mode.startswith("splade_sum"):
        return bent(logits_BLV).sum(dim=1)
    return bent(logits_BLV.amax(dim=1))  # it never falls, so the largest stays the largest: one V for each text


class TorchSession:
    """A model in memory as a session.

    Args:
        model: a transformers model in eval mode.
        outputs: names of the model's outputs, or `sentence_embedding`.
        pooling: what `pool` is told, for `sentence_embedding`.
        layers: likewise.
    """

    def __init__(
        self,
        model: Any,
        outputs: Sequence[str],
        pooling: tuple[Any, ...] | None,
        layers: Iterable[torch.nn.Module] = (),
    ) -> None:
        self.model = model
        self.outputs = list(outputs)
        self.pooling = pooling
        self.layers = list(layers)
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
            pool(of_tokens(out), given["attention_mask"], *self.pooling, layers=self.layers)
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
