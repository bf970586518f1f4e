"""What the PyTorch engine can be told, read once and refused where it makes no sense.

auto_class, outputs, pooling, layers   what to load and what of its answer to keep (see `torch_engine.load`)
words         in front of the names of stored weights, which the class's do not have: `module.`
dtype         `float32` (the default), `bfloat16`, `float16`: of the weights and of all arithmetic
attention     `sdpa` or `eager`: transformers' implementation; None: the model's own choice
device        `cpu` (the default) or `cuda`, the first GPU that is visible
compile       None, `default` or `reduce-overhead`: `torch.compile` in that mode, one program for each shape
cuda_graphs   whether a forward pass is recorded as a CUDA graph, once for each shape, and replayed
tf32          whether float32 products may run in TF32 (10 bits of mantissa) on a GPU; off unless asked for
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

ALLOWED: dict[str, tuple[Any, ...]] = {
    "dtype": ("float32", "bfloat16", "float16"),
    "attention": (None, "sdpa", "eager"),
    "device": ("cpu", "cuda"),
    "compile": (None, "default", "reduce-overhead"),
    "cuda_graphs": (False, True),
    "tf32": (False, True),
}


@dataclass(frozen=True)
class TorchOptions:
    """The options of one session; see this file's opening."""

    auto_class: str = "AutoModel"
    outputs: tuple[str, ...] = ("logits",)
    pooling: tuple[Any, ...] | None = None
    words: str = ""
    layers: tuple[dict[str, Any], ...] = ()
    dtype: str = "float32"
    attention: str | None = None
    device: str = "cpu"
    compile: str | None = None
    cuda_graphs: bool = False
    tf32: bool = False

    @classmethod
    def read(cls, options: Mapping[str, Any] | None) -> TorchOptions:
        """Read options as they are in a job.

        Raises:
            ValueError: one that is not known, a value that is not allowed, or two that exclude each other.
        """
        given = dict(options or {})
        unknown = set(given) - {field.name for field in fields(cls)}
        if unknown:
            raise ValueError(f"PyTorch has no option `{min(unknown)}`")
        for name, allowed in ALLOWED.items():
            if name in given and given[name] not in allowed:
                raise ValueError(f"{name} is `{given[name]}`, and PyTorch takes {', '.join(map(str, allowed))}")
        given["outputs"] = tuple(given.get("outputs", cls.outputs))
        given["pooling"] = tuple(given["pooling"]) if given.get("pooling") else None
        given["layers"] = tuple(given.get("layers", ()))
        parsed = cls(**given)
        if parsed.device == "cpu" and (parsed.cuda_graphs or parsed.tf32):
            raise ValueError("CUDA graphs and TF32 need a GPU: the device is `cpu`")
        if parsed.cuda_graphs and parsed.compile == "reduce-overhead":
            raise ValueError("`reduce-overhead` already records CUDA graphs: use one of the two")
        return parsed
