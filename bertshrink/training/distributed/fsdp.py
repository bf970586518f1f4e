"""Weights in pieces on several devices (FullyShardedDataParallel), in one piece where they are judged and kept.

Accelerate's own configuration asks for it and says how. What is cut is a copy: the objective itself stays whole, and
takes over the copy's weights whenever somebody wants to see them, so that judging, checkpoints and the model that is
kept know nothing of pieces. Source: https://docs.pytorch.org/docs/stable/distributed.fsdp.fully_shard.html
"""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor, nn

from bertshrink.model.families import anatomy_of
from bertshrink.training.distributed import ranks


def copy_for_fsdp(objective: nn.Module) -> nn.Module:
    """A copy of an objective that Accelerate may cut, by layers unless its configuration names other classes."""
    copied: Any = copy.deepcopy(objective)
    encoder = copied.student.base_model
    layers = encoder.get_submodule(anatomy_of(encoder.config.model_type).layers)
    copied._no_split_modules = [type(layers[0]).__name__]
    cut: nn.Module = copied
    return cut


def _options(*, on_cpu: bool = False) -> Any:
    from torch.distributed.checkpoint.state_dict import StateDictOptions

    return StateDictOptions(full_state_dict=True, cpu_offload=on_cpu)


def gather(cut: nn.Module, whole: nn.Module) -> None:
    """Copy the weights of now into the first process's `whole`; every process must ask."""
    from torch.distributed.checkpoint.state_dict import get_model_state_dict

    state = get_model_state_dict(cut, options=_options(on_cpu=True))
    if ranks.is_main():
        whole.load_state_dict(state)


def scatter(whole: nn.Module, cut: nn.Module) -> None:
    """Give every process its pieces of `whole`, which all of them hold; every process must ask."""
    from torch.distributed.checkpoint.state_dict import set_model_state_dict

    set_model_state_dict(cut, whole.state_dict(), options=_options())


def full_tensor(value: Tensor) -> Tensor:
    """A number that was computed over all pieces."""
    from torch.distributed.tensor import DTensor

    return value.full_tensor() if isinstance(value, DTensor) else value
