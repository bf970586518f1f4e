"""What making artifacts needs of the machine, from sizes alone: told, and refused, before anything is made.

    memory   `export` and `quantize` have the float weights in memory up to `TIMES_WEIGHTS` times: PyTorch's or the
             file's, and an engine's
    disk     a stage's files, and what it calibrates with, while it is made; its files once more where it stays, in the
             run folder; once more at `-o`

Of small models both are nothing that a machine lacks; of one of 2 GB they decide. Other techniques' needs hang on
batches and optimizers, and are not told here.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from bertshrink import units
from bertshrink.errors import OutputError, UserError
from bertshrink.files.headers import read_onnx
from bertshrink.hardware import available_memory
from bertshrink.model.checkpoint_info import CheckpointInfo
from bertshrink.model.sizes.size_estimate import Sizes, of_encoder, of_file
from bertshrink.recipe.plan import Plan

TIMES_WEIGHTS = 2.0
"""Measured on XLM-R large (`benchmarks/large_models.py`)."""


@dataclass(frozen=True)
class Needs:
    """Bytes of memory, in the run folder, and at `-o`; all 0 where nothing is known or no artifact is made."""

    memory: int = 0
    run_folder: int = 0
    output: int = 0

    def __str__(self) -> str:
        disk = units.format(self.run_folder + self.output, "B")
        return f"needs about {units.format(self.memory, 'B')} of memory and {disk} of disk"


def needs_of(plan: Plan, finished: Collection[str] = ()) -> Needs:
    """What a plan's artifacts need.

    Args:
        finished: the names of stages that are there already.
    """
    sizes, memory, stored, in_work, last = _first(plan), 0.0, 0, 0, 0
    for stage in plan.stages:
        technique, before = stage.technique, sizes
        if technique.takes:
            sizes = technique.sizes(before) if before is not None else None
        else:
            sizes = of_encoder(technique.makes())
        if technique.gives != "artifact" or before is None or stage.name in finished:
            continue
        last = (sizes or before).num_bytes  # .ort and .pte: about what went in
        memory = max(memory, TIMES_WEIGHTS * before.num_bytes)
        stored, in_work = stored + last, max(in_work, last + technique.scratch_bytes(before))
    return Needs(round(memory), stored + in_work, last)


def _first(plan: Plan) -> Sizes | None:
    """The sizes of the model that is given; None: there is none, or nothing can be told of its format."""
    if plan.model is None or not any(stage.technique.gives == "artifact" for stage in plan.stages):
        return None
    about = plan.model.about
    if isinstance(about, CheckpointInfo):
        return of_encoder(about)
    return of_file(read_onnx(plan.model.file), about.family) if about.format == "onnx" else None


def check_needs(needs: Needs, run_folder: Path, output: Path | None) -> None:
    """Prove that there is so much memory and disk.

    Raises:
        UserError: too little memory.
        OutputError: too little disk.
    """
    free = available_memory()
    if free is not None and needs.memory > free:
        raise UserError(
            f"the run needs about {units.format(needs.memory, 'B')} of memory, and {units.format(free, 'B')} are "
            "available",
            hint="free some, or run it on a machine with more",
        )
    wanted = {run_folder: needs.run_folder}
    if output is not None:
        if _disk(output) == _disk(run_folder):
            wanted[run_folder] += needs.output
        else:
            wanted[output] = needs.output
    for place, num_bytes in wanted.items():
        room = shutil.disk_usage(_there(place)).free
        if num_bytes > room:
            flag = "--runs" if place == run_folder else "-o"
            raise OutputError(
                f"the run needs about {units.format(num_bytes, 'B')} on the disk of `{place}`, and "
                f"{units.format(room, 'B')} are free",
                where=flag,
                hint=f"free some space, or name another place with `{flag}`",
            )


def _disk(place: Path) -> int:
    return _there(place).stat().st_dev


def _there(place: Path) -> Path:
    """The nearest folder around a place that exists."""
    return next(folder for folder in (place.absolute(), *place.absolute().parents) if folder.is_dir())
