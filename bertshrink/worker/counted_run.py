"""The job `count`: a given number of inferences and nothing else, for whoever counts instructions from outside.

Before the first inference and after each one the process asks for its session (getsid), a system call that nobody else
makes: whoever watches from outside sees by these marks where an inference ends. For the count of each to be the same,
Python's garbage collector is off: it starts whenever enough was allocated, and one collection is a sixth of a small
model's inference. The outputs of the last inference come along: a count is worth nothing when the answers are wrong.
"""

from __future__ import annotations

import gc
import os
from typing import TYPE_CHECKING, Any

from bertshrink import engines
from bertshrink.worker.inputs import feeds_of

if TYPE_CHECKING:
    from bertshrink.worker.job import WorkerJob

MAX_VALUES = 4096
"""Values of each output that are given back, evenly spread: enough to compare, small enough to send."""


def count(job: WorkerJob) -> dict[str, Any]:
    """Run; what the engine says of itself, and `outputs`: name -> {"shape", "values"}.

    Raises:
        ModuleNotFoundError: the engine is not installed here.
    """
    import numpy as np

    gc.disable()
    engine = engines.engine(job.engine)
    engine.prepare(str(job.path), job.options)
    feeds = feeds_of(job, job.cases[0])[0]
    session = engine.load(str(job.path), job.threads, job.options)
    arrays: dict[str, Any] = {}
    os.getsid(0)
    for _ in range(job.iterations):
        arrays = session.run(feeds)
        os.getsid(0)
    outputs = {}
    for name, array in arrays.items():
        flat = np.asarray(array).reshape(-1)
        shown = flat[:: max(1, -(-flat.size // MAX_VALUES))].astype(np.float64)
        outputs[name] = {"shape": list(np.asarray(array).shape), "values": shown.tolist()}
    return {"engine": session.describe(), "outputs": outputs}
