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
    from bertshrink.worker.job import Job

    result = work(Job(**json.load(sys.stdin)))
    with os.fdopen(channel, "w", encoding="utf-8") as out:
        json.dump(result, out)


def work(job: Any) -> dict[str, Any]:
    """Do one job; the result in JSON values."""
    from bertshrink.engines import MissingHere
    from bertshrink.worker.counting import count
    from bertshrink.worker.device import devices
    from bertshrink.worker.machine import machine
    from bertshrink.worker.rates import rates
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
    except MissingHere as error:
        return {"lacks": error.what, "hint": error.hint}


if __name__ == "__main__":
    main()
