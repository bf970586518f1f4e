"""How a model is run: one small file per engine behind one protocol (prepare, load, run, describe).

The files here need the standard library, numpy and their engine only, and import nothing else of bertshrink: the same
files travel to a remote worker. An engine is imported when it is asked for, not before.

Every session takes and gives numpy arrays by name:
    in   input_ids, attention_mask[, token_type_ids]   int64, (batch B, length L), right-padded, mask 1 at tokens
    out  classification, multi-label, regression   logits (B, C); one score is C = 1
         token-classification                      logits (B, L, C)
         question-answering                        start_logits, end_logits (B, L)
         mlm                                       logits (B, L, V)
         embedding                                 sentence_embedding (B, H), pooled and normalised as the model says;
                                                   a file may give last_hidden_state (B, L, H), too
The option `outputs` names those that are asked for; without it a session gives all that the model has.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Arrays = dict[str, NDArray[np.generic]]


class Session(Protocol):
    """A loaded model, ready to run."""

    def run(self, feeds: Arrays) -> Arrays:
        """One forward pass; names and shapes as in this file's opening, inputs as `given` has them."""

    def describe(self) -> dict[str, Any]:
        """Engine, version, threads, precision, inputs and outputs: JSON values only."""


@runtime_checkable
class DeviceSession(Session, Protocol):
    """A session whose model is on a device with a clock and an allocator of its own."""

    def device_ns(self, feeds: Arrays) -> int:
        """Nanoseconds of one forward pass by the device's own clock, copies to and from it left out."""

    def device_peaks(self) -> dict[str, int]:
        """The most bytes of the device's memory since the last look, by how they were counted."""


class EngineUnavailable(Exception):
    """This machine lacks what the engine needs besides its own package.

    Args:
        what: a sentence without a full stop.
    """

    def __init__(self, what: str, hint: str) -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint


class Engine(Protocol):
    """What an engine's module offers."""

    def prepare(self, path: str, options: dict[str, Any] | None = None) -> None:
        """Import whatever `load` of the same model will import, and load nothing: loading is timed alone."""

    def load(self, path: str, threads: int | None = None, options: dict[str, Any] | None = None) -> Session:
        """Open the model at `path` (a folder or a file) for `threads` intra-op threads (None: the engine's default)."""


@dataclass(frozen=True)
class EngineEntry:
    """Where an engine comes from."""

    module: str
    package: str
    install: str


ENGINES = {
    "torch": EngineEntry("torch_engine", "torch", "pip install 'bertshrink[ml]'"),
    "onnxruntime": EngineEntry("onnxruntime_engine", "onnxruntime", "pip install 'bertshrink[ml]'"),
    "openvino": EngineEntry("openvino_engine", "openvino", "pip install 'bertshrink[openvino]'"),
    "executorch": EngineEntry("executorch_engine", "executorch.runtime", "pip install 'bertshrink[executorch]'"),
}


def given(feeds: Arrays, inputs: Sequence[str]) -> Arrays:
    """The arrays of a model's inputs: those that it does not have are dropped, token types that nobody gave are 0."""
    arrays = {name: feeds[name] for name in inputs if name in feeds}
    if "token_type_ids" in inputs and "token_type_ids" not in feeds:
        arrays["token_type_ids"] = feeds["input_ids"] * 0
    return arrays


def is_installed(name: str) -> bool:
    """Whether the package of engine `name` can be imported here (it is not imported)."""
    try:
        return importlib.util.find_spec(ENGINES[name].package) is not None
    except ModuleNotFoundError:  # not even the package around it
        return False


def version(name: str) -> str | None:
    """The version of engine `name` as it was installed; None where it is not."""
    try:
        return importlib.metadata.version(ENGINES[name].package.partition(".")[0]) if is_installed(name) else None
    except importlib.metadata.PackageNotFoundError:
        return None


def engine(name: str) -> Engine:
    """The engine's module, imported now.

    Raises:
        KeyError: no engine has that name.
        ModuleNotFoundError: its package is not installed.
    """
    return cast(Engine, importlib.import_module(f"{__name__}.{ENGINES[name].module}"))
