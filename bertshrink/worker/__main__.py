"""A job comes in on stdin, a result goes out on stdout, one JSON document each. Whatever an engine prints goes to
stderr. A missing package is told as `{"missing": package}`, anything else that an engine lacks here as
`{"lacks": what, "hint": how to get it}`.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any


def main() -> None:
    """Read the job, do it, write the result."""
    channel = os.dup(1)
    os.dup2(2, 1)
    from bertshrink.worker.job import WorkerJob

    answer = work(WorkerJob.read(sys.stdin.read()))
    with os.fdopen(channel, "w", encoding="utf-8") as out:
        json.dump(answer, out)


def work(job: Any) -> dict[str, Any]:
    """Do one job; the result in JSON values."""
    from bertshrink.engines import EngineUnavailable
    from bertshrink.worker.counted_run import count
    from bertshrink.worker.list_gpus import devices
    from bertshrink.worker.machine.identity import machine
    from bertshrink.worker.peak_rates import rates
    from bertshrink.worker.timing import measure

    jobs: dict[str, Callable[[Any], dict[str, Any]]] = {
        "time": measure,
        "count": count,
        "devices": devices,
        "rates": rates,
        "look": lambda job: {"machine": machine()},
    }
    try:
        return jobs[job.do](job)
    except ModuleNotFoundError as error:
        return {"missing": error.name}
    except EngineUnavailable as error:
        return {"lacks": error.what, "hint": error.hint}


if __name__ == "__main__":
    main()
