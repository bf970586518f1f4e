"""bertshrink: make a BERT-family encoder small and fast, honestly measured.

    import bertshrink

    student = bertshrink.distill("my-teacher", data="sst2", layers=3)
    small = bertshrink.quantize(student, output="small")
    small.show()

`distill`, `factorize`, `share`, `finetune`, `pretrain`, `export`, `quantize`, `bench`, `gate`, `inspect` and `run` do
what the commands of these names do; see `bertshrink.api`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bertshrink.version import __version__

if TYPE_CHECKING:
    from bertshrink.api.calls import bench, gate, inspect, run
    from bertshrink.api.result import Result

__all__ = [
    "Result",
    "__version__",
    "bench",
    "distill",
    "export",
    "factorize",
    "finetune",
    "gate",
    "inspect",
    "pretrain",
    "prune",
    "quantize",
    "run",
    "share",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module `bertshrink` has no attribute `{name}`")
    if name == "Result":
        from bertshrink.api.result import Result

        return Result
    from bertshrink.api.calls import FUNCTIONS

    return FUNCTIONS[name]


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
