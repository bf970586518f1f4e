"""Several processes that train one model: who this one is, and means over what all of them hold.

`accelerate launch` and torchrun set RANK and WORLD_SIZE. DistributedDataParallel averages gradients over processes,
each of which took its mean over its own share. Shares differ in their number of tokens and labels, so a mean divides by
the average count of all processes: the average of those gradients is then the gradient of the mean over everything.
"""

from __future__ import annotations

import os
import sys
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from bertshrink.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

PATIENCE = timedelta(days=7)
"""How long processes wait for each other. The others wait while the first one judges, measures and stores, which takes
longer than the 10 or 30 minutes after which PyTorch gives up; a process that dies is noticed by the launcher."""
_WHERE = "accelerate's configuration"


def rank() -> int:
    """The number of this process; 0 where it is the only one."""
    return int(os.environ.get("RANK", "0"))


def world_size() -> int:
    """How many processes train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main() -> bool:
    """Whether this is the process that writes and prints."""
    return rank() == 0


def _asks(name: str) -> bool:
    return os.environ.get(name, "").lower() in ("1", "true", "yes")


def is_sharded() -> bool:
    """Whether the launcher wants the student's weights in pieces."""
    return _asks("ACCELERATE_USE_FSDP") and world_size() > 1


def check_launcher() -> None:
    """Refuse kinds of sharding that nothing here can put together again, before any model is loaded.

    Raises:
        UserError: DeepSpeed, or the first version of FullyShardedDataParallel, is configured.
    """
    if _asks("ACCELERATE_USE_DEEPSPEED"):
        hint = "choose plain multi-GPU (DDP), or FSDP with `fsdp_version: 2`"
        raise UserError("DeepSpeed is configured, but not supported", where=_WHERE, hint=hint)
    if _asks("ACCELERATE_USE_FSDP") and os.environ.get("FSDP_VERSION", "1") != "2":
        raise UserError(
            "FSDP is configured in its first version, which flattens weights",
            where=_WHERE,
            hint="set `fsdp_version: 2`, or choose plain multi-GPU (DDP): encoders of this size fit on one device",
        )
    if _asks("ACCELERATE_USE_FSDP"):
        # transformers would otherwise load weights on the first process alone, the frozen teacher's as well.
        os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] = "false"


def mean_over(total: Tensor, count: Tensor) -> Tensor:
    """`total` (a sum over `count` things of this process) over the processes' average count, at least 1 in all."""
    import torch

    if world_size() > 1 and torch.distributed.is_available() and torch.distributed.is_initialized():
        everywhere = count.detach().float().clone()
        torch.distributed.all_reduce(everywhere)
        return total / (everywhere.clamp(min=1.0) / world_size())
    return total / count.clamp(min=1)


def broadcast_from_main(value: Any) -> Any:
    """What the first process says; all processes must ask, and none goes on before it has spoken."""
    if world_size() == 1:
        return value
    import torch
    from accelerate import PartialState

    PartialState(timeout=PATIENCE)  # joins the processes
    box = [value]
    torch.distributed.broadcast_object_list(box)
    return box[0]


def shutdown() -> None:
    """End this process's part in the group, before it ends itself: threads that still listen would abort it then."""
    torch: Any = sys.modules.get("torch")
    if world_size() > 1 and torch is not None and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def all_reduce_max(values_N: Tensor) -> list[float]:
    """(N,) the greatest of each value over all processes; all of them must ask."""
    if world_size() > 1:
        import torch
        from accelerate import PartialState

        values_N = values_N.to(PartialState(timeout=PATIENCE).device)
        torch.distributed.all_reduce(values_N, torch.distributed.ReduceOp.MAX)
    return [float(value) for value in values_N.tolist()]
