"""Runs bertshrink with FullyShardedDataParallel on CPUs, as `python -m bertshrink` would run it on accelerators.

PyTorch shards on CPUs; Accelerate takes the wish for one that needs an accelerator and would train without sharding.
"""

import sys
from typing import Any

import accelerate.accelerator
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType

from bertshrink.__main__ import main

_init = AcceleratorState.__init__
_cut = accelerate.accelerator.fsdp2_prepare_model


def _with_sharding(self: AcceleratorState, mixed_precision: Any = None, cpu: bool = False, **more: Any) -> None:
    PartialState(cpu, **{name: more[name] for name in ("timeout", "backend") if name in more})
    PartialState._shared_state["distributed_type"] = DistributedType.MULTI_XPU
    _init(self, mixed_precision, cpu, **more)


def _and_tell(accelerator: Any, model: Any) -> Any:
    num_whole = sum(parameter.numel() for parameter in model.parameters())
    model = _cut(accelerator, model)
    num_here = sum(parameter.to_local().numel() for parameter in model.parameters())
    sys.stderr.write(f"holds {num_here} of {num_whole} weights in {len(list(_units(model)))} units\n")
    return model


def _units(model: Any) -> Any:
    return (module for module in model.modules() if type(module).__name__.startswith("FSDP"))


AcceleratorState.__init__ = _with_sharding
accelerate.accelerator.fsdp2_prepare_model = _and_tell

main()
