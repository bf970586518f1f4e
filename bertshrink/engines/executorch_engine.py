"""ExecuTorch as an engine: a .pte program in its Python runtime, the same C++ code that runs on a phone.

A program knows its arguments by place. bertshrink's programs carry their names as two more methods that give a string
each (`input_names`, `output_names`: names with commas between), so that a file is enough to run it. In one of another
exporter the inputs are taken for token ids, mask and token types, as every encoder of transformers has them, and the
outputs are named by who opens it, else `0`, `1` and so on.

The sizes in a program's metadata are those that its memory was planned for: the only ones where shapes are fixed, the
largest ones where they are not. The runtime checks the product of a tensor's sizes only, so the session checks each.

The runtime's threads belong to the process: another `load` with another number changes them for all sessions.
"""

from __future__ import annotations

import importlib.metadata
import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bertshrink.engines import given

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # that its Python interface is experimental is the user's choice of engine
    from executorch.extension.pybindings import portable_lib
    from executorch.runtime import Runtime

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
"""In the order of transformers' own arguments."""

_FORWARD = "forward"


class ExecuTorchSession:
    """A loaded program behind the engines' protocol."""

    def __init__(self, program: Any, threads: int | None, options: dict[str, Any]) -> None:
        self.method = program.load_method(_FORWARD)
        self.threads = threads
        about = self.method.metadata
        self.inputs = _names(program, "input_names") or list(INPUTS[: about.num_inputs()])
        self.names = (
            _names(program, "output_names")
            or list(options.get("output_names", ()))
            or [str(at) for at in range(about.num_outputs())]
        )
        self.outputs = list(options.get("outputs") or self.names)
        self.planned = [tuple(about.input_tensor_meta(at).sizes()) for at in range(about.num_inputs())]

    def run(self, feeds: dict[str, NDArray[np.generic]]) -> dict[str, NDArray[np.generic]]:
        """One forward pass; inputs as `engines.given` has them.

        Raises:
            ValueError: an input is larger than the program's memory was planned for.
        """
        feeds = given(feeds, self.inputs)
        for name, planned in zip(self.inputs, self.planned, strict=True):
            if any(size > most for size, most in zip(feeds[name].shape, planned, strict=True)):
                raise ValueError(f"`{name}` is {feeds[name].shape}, and the program takes at most {planned}")
        tensors = self.method.execute([torch.from_numpy(feeds[name]) for name in self.inputs])
        by_name = dict(zip(self.names, tensors, strict=True))
        return {name: by_name[name].numpy() for name in self.outputs}

    def describe(self) -> dict[str, Any]:
        """Engine, version, threads, inputs with the sizes they are planned for, and outputs."""
        return {
            "engine": "executorch",
            "version": importlib.metadata.version("executorch"),
            "threads": self.threads or portable_lib._threadpool_get_thread_count(),
            "inputs": self.inputs,
            "planned": [list(sizes) for sizes in self.planned],
            "outputs": self.outputs,
        }


def _names(program: Any, method: str) -> list[str]:
    """What a program says, or nothing."""
    if method not in program.method_names:
        return []
    (names,) = program.load_method(method).execute([])
    return str(names).split(",")


def prepare(path: str, options: dict[str, Any] | None = None) -> None:
    """Nothing is left to import: this file has imported it all."""


def load(path: str, threads: int | None = None, options: dict[str, Any] | None = None) -> ExecuTorchSession:
    """Open a program.

    Args:
        threads: threads of the whole process; None leaves ExecuTorch's choice.
        options: `output_names`: all outputs' names, where the program does not say them; `outputs`: the names of those
            that are given (all).

    Raises:
        ValueError: the program is not an encoder's.
    """
    if threads is not None:
        portable_lib._unsafe_reset_threadpool(threads)
        torch.set_num_threads(threads)
    program = Runtime.get().load_program(path)
    if _FORWARD not in program.method_names:
        raise ValueError(f"the program has no method `{_FORWARD}`")
    session = ExecuTorchSession(program, threads, options or {})
    if len(session.planned) != len(session.inputs):
        raise ValueError(f"the program takes {len(session.planned)} inputs, an encoder at most {len(INPUTS)}")
    return session
