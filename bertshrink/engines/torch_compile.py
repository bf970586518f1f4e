"""A forward pass compiled by PyTorch's Inductor: one program for each shape, and none is made while it is timed.

Compiling happens at the first pass of each shape and takes seconds to minutes; programs are kept in Inductor's cache on
the disk, so a second process reads what the first one made (`counts` tells how often). Past `MAX_SHAPES` shapes PyTorch
would quietly run the uncompiled model; here it raises instead.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from bertshrink.engines import EngineUnavailable

Forward = Callable[[dict[str, torch.Tensor]], list[torch.Tensor]]
"""Arrays by name -> the outputs, all on one device."""

MAX_SHAPES = 64
"""PyTorch's own limit is 8, fewer than a table of four batch sizes and three lengths has."""


def compiled(forward: Forward, mode: str, device: str) -> Forward:
    """The same pass, compiled at the first call of each shape.

    Args:
        mode: `default` or `reduce-overhead`, torch.compile's words.

    Raises:
        EngineUnavailable: what Inductor needs to make programs for the device is not here.
    """
    _require_tools(device)
    import torch._dynamo.config as dynamo

    dynamo.recompile_limit = MAX_SHAPES
    dynamo.fail_on_recompile_limit_hit = True
    program = torch.compile(forward, mode=mode, dynamic=False)
    new_step: Callable[[], None] = torch.compiler.cudagraph_mark_step_begin

    def run(given: dict[str, torch.Tensor]) -> list[torch.Tensor]:
        new_step()  # what reduce-overhead gave before may be overwritten now
        return program(given)

    return run


def _require_tools(device: str) -> None:
    if device == "cuda":
        from torch.utils._triton import has_triton

        if not has_triton():
            raise EngineUnavailable(
                "`torch.compile` needs Triton on a GPU, which is not installed or does not support this GPU",
                "`pip install triton`, or leave `compiled` out",
            )
        return
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler:
        raise EngineUnavailable(
            "`torch.compile` needs a C++ compiler on the PATH",
            "install one (`apt install g++`) or leave `compiled` out",
        ) from None


def counts() -> dict[str, Any]:
    """What the compiler did in this process: programs, breaks between them, and programs taken from its cache."""
    from torch._dynamo.utils import counters

    return {
        "programs": counters["stats"]["unique_graphs"],
        "breaks": sum(counters["graph_break"].values()),
        "from_cache": counters["inductor"]["fxgraph_cache_hit"],
    }
