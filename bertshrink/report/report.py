"""The report of a run: every model that appeared, and everything measured of it. Versioned JSON in and out.

History of the form:
    bertshrink.report/1   first form
    bertshrink.report/2   a measurement's warnings are data: kind, case and values in place of a sentence
"""

import json
import os
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bertshrink.errors import BaselineError, MeasurementError, UserError
from bertshrink.files.bounded_text import Reader
from bertshrink.report.measurement import Conditions, Environment, Measurement

SCHEMA = "bertshrink.report/2"
_HINT = "create it again with the `command` in the report"
_READER = Reader(BaselineError, "this is not a report", _HINT)


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Component(_Record):
    """A part of a model: `embeddings`, `attention`, `feed-forward`, `head`, ..."""

    name: str
    num_parameters: int
    num_bytes: int


class Sheet(_Record):
    """A small table of words about one model, shown as it is."""

    title: str
    heading: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


class Snapshot(_Record):
    """One model at one moment of the run."""

    name: str = Field(description="unique in the report: `teacher`, `01-distill`, `01-distill/untrained`")
    label: str = Field(description="what people read: `distill to 3 layers`")
    role: Literal["reference", "stage", "baseline", "compared"] = Field(
        description="the first model, a stage's result, a model shown beside it, another model of `bench`"
    )
    kind: Literal["encoder", "artifact"]
    technique: str | None = None
    settings: dict[str, Any] = Field(default_factory=dict)
    path: str | None = Field(None, description="where the model is, relative to the run folder; None when not kept")
    facts: dict[str, Any] = Field(
        default_factory=dict, description="family, task, num_layers, hidden_size, precision, ..."
    )
    components: list[Component] = Field(default_factory=list)
    measurements: list[Measurement] = Field(default_factory=list)
    notes: list[str] = Field(default_factory=list, description="what the technique says it did, one sentence each")
    history: list[dict[str, float]] = Field(
        default_factory=list, description="training log: step, loss, its parts, ..."
    )
    sheets: list[Sheet] = Field(default_factory=list, description="further tables, such as the checks for phones")
    seconds: float | None = None
    paper: str | None = None

    def find(self, metric: str, **conditions: object) -> Measurement | None:
        """The first measurement of `metric` whose conditions have these values."""
        for m in self.measurements:
            if m.metric == metric and all(getattr(m.conditions, k) == v for k, v in conditions.items()):
                return m
        return None


class Report(_Record):
    """Everything that a run measured."""

    schema_id: str = Field(SCHEMA, alias="schema")
    name: str
    version: str
    created: str = Field(description="UTC, ISO 8601")
    command: str = Field(description="the command that makes this report again")
    model: str
    task: str
    data: dict[str, Any] = Field(default_factory=dict, description="name, fingerprint, rows by split")
    recipe: str = Field("", description="the recipe as it was written")
    environments: dict[str, Environment] = Field(default_factory=dict)
    snapshots: list[Snapshot] = Field(default_factory=list)
    notes: list[str] = Field(default_factory=list)

    model_config = ConfigDict(extra="forbid", populate_by_name=True, validate_by_name=True, validate_by_alias=True)

    @property
    def reference(self) -> Snapshot:
        """The model that everything is compared with."""
        return next(s for s in self.snapshots if s.role == "reference")

    def gap(self, own: Snapshot, other: Snapshot, metric: str) -> str | None:
        """How much of what `other` lacks to the reference `own` makes good, as a sentence; None where it lacks
        nothing.
        """
        measurements = [snapshot.find(metric) for snapshot in (self.reference, own, other)]
        values = [m.value for m in measurements if m is not None]
        if len(values) < 3 or values[0] <= values[2]:
            return None
        share = (values[1] - values[2]) / (values[0] - values[2])
        return f"it closes {100 * share:.1f} % of the gap in {metric} between `{other.label}` and the reference"

    def columns(self) -> list[tuple[str, Conditions]]:
        """Each distinct (metric, conditions without the engine and precision) in the order first seen."""
        seen: dict[tuple[str, Conditions], None] = {}
        for snapshot in self.snapshots:
            for m in snapshot.measurements:
                bare = m.conditions.model_copy(update={"engine": None, "precision": None})
                seen.setdefault((m.metric, bare))
        return list(seen)

    def to_json(self) -> str:
        """One JSON document, sorted keys, ending in a newline."""
        data = self.model_dump(mode="json", by_alias=True)
        return json.dumps(data, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def read(cls, path: Path) -> "Report":
        """Read a report file.

        Raises:
            UserError: there is no such file.
            BaselineError: it is not a report, is damaged, or has another version of the form.
        """
        if not os.path.lexists(path):
            raise UserError(
                f"there is no report at `{path}`", where=str(path), hint="run a recipe first: `bertshrink run`"
            )
        data = _READER.read_json(path)
        if not isinstance(data, dict) or data.get("schema") != SCHEMA:
            version = data.get("schema") if isinstance(data, dict) else None
            text = f"the report has the schema `{version}`; this version reads `{SCHEMA}`"
            raise BaselineError(text, where=str(path), hint=_HINT)
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"])
            text = f"the report is damaged at `{place}`: {first['msg']}"
            raise BaselineError(text, where=str(path), hint=_HINT) from None
        except MeasurementError as error:
            raise BaselineError(f"the report is damaged: {error.what}", where=str(path), hint=_HINT) from None
