"""Whether a file suits a phone, as far as that can be said without one: `check_mobile`.

    providers  which nodes XNNPACK, NNAPI and CoreML would take from the CPU, in how many pieces, and what share of the
               model's weights is multiplied there (`compatibility_child`)
    .ort       the size in ONNX Runtime's own format, and the operators and types that a build of it needs for the file
    memory     whether it loads and runs within a cap

Nodes are not alike: a model of which a provider takes 80 % of the nodes and none of the weights gains nothing, so the
verdict looks at the weights, too. For NNAPI and CoreML it follows the rule of onnxruntime's own tool, one piece with
more than 75 % of the nodes (between pieces tensors are copied); XNNPACK computes on the CPU, in its memory, and needs
no such rule.

Memory is the exact peak of the worker (VmHWM), loading and running one text, against the cap. Nothing is enforced: a
limit of address space counts what is never touched, and one by cgroups has the kernel throw out pages of files and read
them again, so that nearly anything "runs". The worker has Python and NumPy in it, an app has its own code: so

    fits      the whole process stays within the cap
    exceeds   the model alone (the peak less what importing the engine took) does not
    depends   on what the app takes besides
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, NonNegativeInt, PositiveInt, ValidationError

from bertshrink import errors, units
from bertshrink.errors import BertshrinkError, MeasurementError, UserError
from bertshrink.files.onnx_data_file import size_of
from bertshrink.files.scratch_folder import scratch_folder
from bertshrink.meters.latency.measure import job_of
from bertshrink.meters.latency.settings import LatencySettings
from bertshrink.meters.latency.worker_result import Phase, WorkerResult
from bertshrink.meters.targets.host import LocalRunner
from bertshrink.sources.probe_process import child_environment
from bertshrink.worker.job import RunSpec

CAP_BYTES = 128 * 2**20
"""What an app can take on a small phone without being ended soon."""

ENGINE = "onnxruntime"
_LENGTH = 128
_TIMEOUT_S = 600.0
_TAIL = 1_000
NNAPI_NOTE = "NNAPI is deprecated since Android 15 (developer.android.com/ndk/guides/neuralnetworks/migration-guide)"

Verdict = Literal["yes", "maybe", "no"]
Fit = Literal["fits", "depends", "exceeds"]
Table = tuple[tuple[str, ...], list[tuple[str, ...]]]
"""A heading and rows of text."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ProviderCoverage(_Frozen):
    """What one provider takes of a graph.

    Attributes:
        shapes: as the file has them, `open` or `fixed`; or `fixed`, if they were.
        num_nodes: of the graph.
        num_taken: that it takes.
        num_partitions: unbroken groups of these.
        num_weights: multiply-adds with weights, per token.
        num_weights_taken: those of the nodes that it takes.
        not_taken: operators that it does not know.
    """

    provider: str
    shapes: Literal["open", "fixed"]
    num_nodes: PositiveInt
    num_taken: NonNegativeInt
    num_partitions: NonNegativeInt
    num_weights: NonNegativeInt
    num_weights_taken: NonNegativeInt
    not_taken: tuple[str, ...]

    @property
    def share(self) -> float:
        """Of the nodes that it takes, 0 to 1."""
        return self.num_taken / self.num_nodes

    @property
    def weight_share(self) -> float:
        """Of the multiply-adds with weights that it takes, 0 to 1."""
        return self.num_weights_taken / self.num_weights if self.num_weights else 0.0

    @property
    def verdict(self) -> Verdict:
        """Whether it is worth trying there."""
        if self.weight_share <= 0.5:
            return "no"
        if self.provider == "XNNPACK":
            return "yes" if self.weight_share > 0.75 else "maybe"
        if self.num_partitions == 1:
            return "yes" if self.share > 0.75 else "maybe" if self.share > 0.5 else "no"
        return "maybe" if self.num_partitions == 2 and self.share > 0.75 else "no"


class MemoryFootprint(_Frozen):
    """A file and what it takes to run it.

    Attributes:
        format: `onnx` or `ort`.
        size_bytes: of the file.
        peaks_bytes: of the process in each phase: import, load, first, steady.
        cap_bytes: what is allowed.
    """

    format: str
    size_bytes: PositiveInt
    peaks_bytes: dict[Phase, PositiveInt]
    cap_bytes: PositiveInt

    @property
    def peak_bytes(self) -> int:
        """The most that the process had."""
        return max(self.peaks_bytes.values())

    @property
    def model_bytes(self) -> int:
        """The same less what importing the engine took."""
        return self.peak_bytes - self.peaks_bytes["import"]

    @property
    def fit(self) -> Fit:
        """Whether it runs within the cap."""
        if self.peak_bytes <= self.cap_bytes:
            return "fits"
        return "exceeds" if self.model_bytes > self.cap_bytes else "depends"


class MobileReport(_Frozen):
    """All that can be said of a file without a phone.

    Attributes:
        length: tokens of the text that was run.
        coverage: a row for each provider; none of an .ort file.
        operators: `domain:name` -> types that a reduced build must keep, in its configuration's words; empty for
            operators that are built whole.
        footprints: of the file, and of the .ort file made of it.
        notes: a sentence each.
    """

    length: PositiveInt
    coverage: tuple[ProviderCoverage, ...]
    operators: dict[str, str]
    footprints: tuple[MemoryFootprint, ...]
    notes: tuple[str, ...]

    def tables(self) -> list[Table]:
        """What a page or a terminal shows."""
        providers: list[tuple[str, ...]] = [
            (
                row.provider,
                row.shapes,
                f"{row.num_taken} of {row.num_nodes}",
                str(row.num_partitions),
                f"{100 * row.weight_share:.0f} %",
                row.verdict,
            )
            for row in self.coverage
        ]
        files: list[tuple[str, ...]] = [
            (
                f".{file.format}",
                units.format(file.size_bytes, "B"),
                units.format(file.peaks_bytes["load"], "B"),
                units.format(file.peaks_bytes["steady"], "B"),
                units.format(file.model_bytes, "B"),
                f"{file.fit} ({units.format(file.cap_bytes, 'B')})",
            )
            for file in self.footprints
        ]
        shown: list[Table] = [(("file", "size", "peak loading", "peak running", "without engine", "memory cap"), files)]
        if providers:
            shown.insert(0, (("provider", "shapes", "nodes", "pieces", "weights", "worth trying"), providers))
        return shown


def check_mobile(launch: RunSpec, cap_bytes: int = CAP_BYTES, host: LocalRunner | None = None) -> MobileReport:
    """Check a file that ONNX Runtime runs.

    Args:
        cap_bytes: of memory, for the whole process.

    Raises:
        UserError: a model of another engine.
        UnsafeModel: ONNX Runtime cannot open the file.
        MeasurementError: the check or the run died or gave nothing that can be believed.
        MissingDependency: onnxruntime is not installed.
    """
    if launch.engine != ENGINE:
        raise UserError(
            f"`{launch.path.name}` runs on {launch.engine}, and the phone checks are for ONNX Runtime files",
            where="--mobile",
            hint="export it first: `bertshrink export MODEL -o DIR`, then check DIR",
        )
    with scratch_folder() as scratch:
        look = _look(launch.path, scratch)
        ort = Path(look.ort)
        paths = [launch.path] if ort == launch.path else [launch.path, ort]
        only_batch, only_length = launch.shape or (None, None)
        batch, length = only_batch or 1, only_length or min(_LENGTH, launch.max_length)
        files = []
        for path in paths:
            peaks = run_once(replace(launch, path=path), batch, length, host or LocalRunner()).memory_bytes
            size = size_of(path)
            files.append(
                MemoryFootprint(format=path.suffix[1:], size_bytes=size, peaks_bytes=dict(peaks), cap_bytes=cap_bytes)
            )
    return MobileReport(
        length=length,
        coverage=look.coverage,
        operators=_named(look.operators, look.types),
        footprints=tuple(files),
        notes=_notes(look.coverage, launch.path.suffix, length),
    )


class _FileLook(_Frozen):
    """What the child gives back; see `compatibility_child.look`."""

    operators: dict[str, dict[str, list[str]]]
    types: dict[str, str]
    ort: str
    coverage: tuple[ProviderCoverage, ...]


def _look(path: Path, scratch: Path) -> _FileLook:
    """Have a file looked at in a process of its own, and outlive whatever it does there."""
    command = [sys.executable, "-P", "-m", "bertshrink.meters.phone.compatibility_child", str(path), str(scratch)]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=child_environment(),
            timeout=_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise MeasurementError(f"the check of `{path}` did not finish within {_TIMEOUT_S:g} s") from None
    words = done.stderr.decode(errors="replace").strip()[-_TAIL:]
    try:
        told = json.loads(done.stdout.splitlines()[-1]) if done.stdout and not done.returncode else {}
        if "refused" in told:
            raise _error(*told["refused"])
        return _FileLook.model_validate(told)
    except (ValueError, ValidationError):
        raise MeasurementError(
            f"the check of `{path}` ended with status {done.returncode} and no result",
            hint=f"onnxruntime's tools may have changed; last lines of stderr:\n{words}"
            if words
            else "it said nothing",
        ) from None


def _error(kind: str, what: str, where: str | None, hint: str | None) -> BertshrinkError:
    made: BertshrinkError = getattr(errors, kind)(what, where=where, hint=hint)
    return made


def run_once(launch: RunSpec, batch: int, length: int, host: LocalRunner) -> WorkerResult:
    """Load a file and run a few texts on one thread."""
    settings = LatencySettings(batch=(batch,), length=(length,), seconds=0.01, warmup=0)
    job = replace(job_of(launch, settings, 1), min_samples=1, warmup_iterations=1)
    return host.run([job], _TIMEOUT_S)[0]


def _named(operators: Mapping[str, Mapping[str, list[str]]], types: Mapping[str, str]) -> dict[str, str]:
    names = {
        f"{domain}:{name}" for domain, versions in operators.items() for some in versions.values() for name in some
    }
    return {name: types.get(name, "") for name in sorted(names)}


def _notes(coverage: tuple[ProviderCoverage, ...], suffix: str, length: int) -> tuple[str, ...]:
    notes = (
        [NNAPI_NOTE] if coverage else [f"a {suffix} file contains the CPU graph: no other provider can run parts of it"]
    )
    if coverage and all(row.verdict == "no" for row in coverage):
        notes.append("the CPU provider is the best choice: it runs the whole graph")
    open_ones = {row.provider for row in coverage if row.shapes == "open" and row.verdict == "no"}
    better = sorted({row.provider for row in coverage if row.shapes == "fixed" and row.verdict != "no"} & open_ones)
    if better:
        notes.append(
            f"{', '.join(better)}: needs fixed shapes; `bertshrink export --static-shape 1x{length}` makes them"
        )
    return tuple(notes)
