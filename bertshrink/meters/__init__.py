"""How a model is measured: the table of meters. A meter is a plain function, or a class where texts are prepared once
for all models; naming one here imports nothing.

`each` meters look at every model as soon as it stands; `together` ones wait for the last stage and then measure all
models side by side, so that what the machine does meanwhile falls on all of them alike.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Meter:
    """One kind of measuring.

    Attributes:
        what: in a few words, for help texts.
        function: `module:name` of what measures.
        settings: `module:name` of its settings, which are recipe keys; None when it has none.
        when: after each stage, or once at the end for all models together.

    """

    what: str
    function: str
    settings: str | None
    when: Literal["each", "together"]


METERS: dict[str, Meter] = {
    "size": Meter(
        "bytes on disk, parameters by component, operations per token", "bertshrink.meters.size:measure", None, "each"
    ),
    "quality": Meter(
        "the task's metric, and agreement with the reference", "bertshrink.meters.quality:Exam", None, "each"
    ),
    "running": Meter(
        "latency, load time and memory in fresh processes",
        "bertshrink.meters.running:measure",
        "bertshrink.meters.settings:RunningSettings",
        "together",
    ),
}


def resolve(reference: str) -> Any:
    """What `module:name` names, imported now."""
    module, _, name = reference.partition(":")
    return getattr(importlib.import_module(module), name)
