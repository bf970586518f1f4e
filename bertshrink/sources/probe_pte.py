"""What a .pte program says of itself when it is run: its inputs, whether its shape is open, its outputs.

A program does not say whether a size is fixed: the sizes that it tells are those that its memory was planned for. So it
is run at these, and at one text of 5 tokens: if it takes that too, batch and length are open up to them.
"""

from __future__ import annotations

import contextlib
import math
from pathlib import Path
from typing import Any

import numpy as np

from bertshrink.engines import ENGINES, engine, is_installed
from bertshrink.errors import MissingDependency, UnsafeModel
from bertshrink.sources.probe_limits import check_finite

_SMALL = (1, 5)
_HINT = "make one with `bertshrink export MODEL --to executorch -o DIR`"
_MOST_TOKENS = 1 << 20
"""Of one batch. A program that plans for more cannot be run to see whether it works."""


def look(path: Path) -> dict[str, Any]:
    """Run a program.

    Returns:
        the fields of `probe.ProbeResult`; the vocabulary is not known.

    Raises:
        UnsafeModel: it is not an encoder's, or gives values that are not finite.
        MissingDependency: ExecuTorch is not installed.
    """
    if not is_installed("executorch"):
        raise MissingDependency(
            "a .pte program needs ExecuTorch, which is not installed", hint=ENGINES["executorch"].install
        )
    try:
        session = engine("executorch").load(str(path), threads=1)
    except (RuntimeError, ValueError) as error:
        what = f"ExecuTorch cannot open the file: {(str(error).splitlines() or [''])[0][:300]}"
        raise UnsafeModel(what, hint=_HINT) from None
    about = session.describe()
    names, planned = about["inputs"], {tuple(sizes) for sizes in about["planned"]}
    sizes = next(iter(planned), ())
    if not {"input_ids", "attention_mask"} <= set(names) or len(planned) != 1 or len(sizes) != 2:
        shown = ", ".join("x".join(map(str, sizes)) for sizes in about["planned"]) or "none"
        what = f"the program is not a text encoder: its inputs are {shown}, not token ids and a mask of one shape"
        raise UnsafeModel(what, hint=_HINT)
    if math.prod(sizes) > _MOST_TOKENS:
        raise UnsafeModel(f"the program plans memory for {sizes[0]}x{sizes[1]} tokens", hint=_HINT)
    outputs, is_open = _run(session, names, sizes), False
    if sizes != _SMALL and all(small <= most for small, most in zip(_SMALL, sizes, strict=True)):
        with contextlib.suppress(UnsafeModel):
            outputs, is_open = _run(session, names, _SMALL), True
    shape = [None, None] if is_open else list(sizes)
    return {
        "inputs": {name: {"type": "int64", "shape": shape} for name in names},
        "names": {name: name for name in names},
        "outputs": {
            name: {"type": "float", "shape": [None if is_open else len(value), *value.shape[1:]]}
            for name, value in outputs.items()
        },
        "vocab_size": None,
        "precision": "unknown",
        "opset": 0,
        "producer": "",
        "metadata": {},
        "shape": shape,
        "most": list(sizes) if is_open else None,
    }


def _run(session: Any, names: list[str], sizes: tuple[int, ...]) -> dict[str, Any]:
    feeds = {name: np.full(sizes, int(name != "token_type_ids"), dtype=np.int64) for name in names}
    try:
        outputs: dict[str, Any] = session.run(feeds)
    except (RuntimeError, ValueError) as error:
        what = f"ExecuTorch cannot run the file: {(str(error).splitlines() or [''])[0][:300]}"
        raise UnsafeModel(what, hint=_HINT) from None
    check_finite(outputs)
    return outputs
