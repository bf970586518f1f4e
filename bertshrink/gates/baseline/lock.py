"""The baseline: `bertshrink.lock.json`, committed and reviewed like code.

Sorted, one line a figure, nothing in it that changes by itself (no dates, no paths of a machine), so that its diff is
what a reviewer reads: which figure moved, which tensor appeared. Outcomes of questions are kept as bits, so that
accuracy is compared question by question.

History of the form:
    bertshrink.lock/1   first form; `renamed_from` and what was accepted of operations are only where there is some
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, ValidationError

from bertshrink.errors import BaselineError, UserError
from bertshrink.files.atomic import LFS_POINTER
from bertshrink.files.bounded_text import Reader
from bertshrink.gates.figures.figure import Reading
from bertshrink.gates.figures.file_metrics import Artifact
from bertshrink.gates.limits.metric_key import MetricKey, read_key

SCHEMA = "bertshrink.lock/1"
_HINT = "restore it from git, or write it again with `bertshrink gate --update` and review the difference"
_READER = Reader(BaselineError, "the lock is damaged", _HINT)


def _figure_key(name: object) -> object:
    """A figure's name in the lock as its key. Raises ValueError: there is no such figure."""
    try:
        return read_key(name) if isinstance(name, str) else name
    except UserError as error:
        raise ValueError(error.what) from None


FigureKey = Annotated[MetricKey, BeforeValidator(_figure_key), PlainSerializer(str)]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Accepted(_Record):
    """A change that a team took on purpose: judged rules pass for exactly this step, in the change that makes it."""

    before: float = Field(description="the figure in the baseline; of `new_operators`, how many operations it has")
    now: float = Field(description="the figure that is accepted")
    why: str = Field(min_length=1)
    operators: tuple[str, ...] | None = Field(None, description="of `new_operators`: which")


class Entry(_Record):
    """One artifact as it was when the lock was written."""

    file: str
    sha256: str
    metrics: dict[FigureKey, Reading]
    operators: dict[str, int] = Field(default_factory=dict)
    tensors: dict[str, str] = Field(default_factory=dict, description="type, shape and bytes of each large tensor")
    accepted: dict[FigureKey, Accepted] = Field(default_factory=dict)
    renamed_from: str | None = Field(None, description="what it was called in an older lock")

    def reading(self, key: MetricKey) -> Reading | None:
        """A figure; an operation that does not occur has none of it, where operations are known at all."""
        if key.operator is not None:
            count = self.operators.get(key.operator, 0)
            return Reading(value=count, unit="count") if self.operators else None
        return self.metrics.get(key)

    @classmethod
    def of(
        cls,
        artifact: Artifact,
        readings: dict[MetricKey, Reading],
        accepted: dict[MetricKey, Accepted] | None = None,
        renamed_from: str | None = None,
    ) -> Entry:
        """What the lock keeps of an artifact; the counts of operations are in a table of their own."""
        metrics = {key: reading for key, reading in readings.items() if key.operator is None}
        return cls(
            file=artifact.file.name,
            sha256=artifact.sha256,
            metrics=metrics,
            operators=dict(artifact.operators),
            tensors=dict(artifact.tensors),
            accepted=accepted or {},
            renamed_from=renamed_from,
        )


class Lock(_Record):
    """All artifacts, by the names that the configuration gives them."""

    schema_id: str = Field(SCHEMA, alias="schema")
    artifacts: dict[str, Entry] = Field(default_factory=dict)

    model_config = ConfigDict(
        frozen=True, extra="forbid", populate_by_name=True, validate_by_name=True, validate_by_alias=True
    )

    def to_json(self) -> str:
        """The file's text: sorted, a figure to a line, ending in a newline."""
        data = self.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=False)
        for entry in data["artifacts"].values():
            for name in ("accepted", "operators", "tensors"):
                if not entry[name]:
                    del entry[name]
        return _lines(data, 0) + "\n"


def _lines(value: Any, depth: int) -> str:
    """JSON with sorted keys; objects of plain values are on one line from the third level on."""
    if isinstance(value, dict) and value:
        is_flat = depth > 3 and not any(isinstance(v, dict) for v in value.values())
        if not is_flat:
            inner = ",\n".join(
                f"{' ' * (depth + 1)}{json.dumps(key, ensure_ascii=False)}: {_lines(value[key], depth + 1)}"
                for key in sorted(value)
            )
            return f"{{\n{inner}\n{' ' * depth}}}"
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        value = int(value)
    if isinstance(value, dict):
        pairs = (f"{json.dumps(key, ensure_ascii=False)}: {_lines(value[key], depth + 1)}" for key in sorted(value))
        return f"{{{', '.join(pairs)}}}"
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def parse(text: str, where: str) -> Lock:
    """Read a lock's text. Raises BaselineError: it is not a lock, is damaged, or has another version of the form."""
    if text.startswith(LFS_POINTER):
        hint = "fetch it with `git lfs pull`; better keep it out of LFS, as text that is reviewed: `git lfs untrack`"
        raise BaselineError("the lock is a git LFS pointer: the file itself is not here", where=where, hint=hint)
    if "\n<<<<<<< " in f"\n{text}":
        raise BaselineError("the lock holds a merge conflict", where=where, hint=_HINT)
    data = _READER.json(text, where)
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        version = data.get("schema") if isinstance(data, dict) else None
        what = f"the lock has the schema `{version}`; this version reads `{SCHEMA}`"
        raise BaselineError(what, where=where, hint=_HINT)
    try:
        return Lock.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        raise BaselineError(f"the lock is damaged at `{place}`: {message}", where=where, hint=_HINT) from None


def read_lock(path: Path) -> Lock | None:
    """Read the lock of the working tree; None where there is none. Raises BaselineError: it cannot be read."""
    return parse(_READER.read_text(path), str(path)) if os.path.lexists(path) else None
