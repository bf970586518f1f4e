"""Assignments of one model, written and judged: what plain quantization, repair and choice have in common.

Each is written into a folder of its own below the stage's working folder, as an artifact that its engine opens, and
compared with the float artifact on the same texts. Card and papers are written for what is kept alone.
"""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx

from bertshrink.errors import UserError
from bertshrink.files.atomic import move, write_text
from bertshrink.files.shards import sha256_weights
from bertshrink.hardware import release_freed_memory
from bertshrink.model.artifact import Artifact, ArtifactCard
from bertshrink.model.folder.layout import QUANTIZED
from bertshrink.onnx_graph.encoder_graph import bytes_by_type, operators, read_model, write_model
from bertshrink.techniques.output_cosine import dev_texts
from bertshrink.techniques.quantize.calibration.prepare import CalibrationResult, prepare
from bertshrink.techniques.quantize.coverage import TypeCoverage, account
from bertshrink.techniques.quantize.rewrite import rewrite
from bertshrink.techniques.quantize.schemes import precision
from bertshrink.techniques.quantize.similarity import SENTENCES, OutputSimilarity

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bertshrink.techniques.base import Workbench
    from bertshrink.techniques.quantize.settings import QuantizeSettings

GOOD_COSINE = 0.99
"""Where plain int8 agrees as much with the float model, nobody looks for outlier features. MiniLM has 0.998."""
NUM_ERROR_TEXTS = 32
"""Texts that say which weight's rounding changes outputs most: an order is wanted of them, no figure."""


@dataclass(frozen=True)
class BuiltVariant:
    """One assignment, written.

    Attributes:
        accounting: what was counted in its graph.
        agreement: with the float artifact: see `OutputSimilarity.agreement`.
    """

    artifact: Artifact
    types: Mapping[str, str]
    accounting: TypeCoverage
    agreement: dict[str, float | int]

    @property
    def size_bytes(self) -> int:
        """Bytes of its files."""
        return self.artifact.num_bytes


class VariantBuilder:
    """Writes and judges assignments of one model.

    Args:
        artifact: the float one.
        source: its graph, canonical.
        bench: for its texts, its folder and its metric.
    """

    def __init__(
        self, artifact: Artifact, source: onnx.ModelProto, settings: QuantizeSettings, bench: Workbench
    ) -> None:
        engine = settings.engine or artifact.card.engine
        self.before = artifact if engine == artifact.card.engine else artifact.with_engine(engine, {})
        self.source = source
        self.settings = settings
        self.bench = bench

    def prepare(self, types: Mapping[str, str], settings: QuantizeSettings | None = None) -> CalibrationResult:
        """Calibrate as far as an assignment asks for it."""
        return prepare(self.source, types, self.before, settings or self.settings, self.bench)

    def make(
        self, types: Mapping[str, str], prepared: CalibrationResult, name: str, options: Mapping[str, Any] | None = None
    ) -> BuiltVariant:
        """Write an assignment and compare it. Raises CheckFailed: the graph is not what was asked for."""
        likeness = self.likeness  # asked first: the float model is not opened while the new graph is in memory
        quantized = rewrite(prepared.model, types, prepared.options)
        accounting, artifact = quantized.accounting, self.write(quantized.model, types, name, options or {})
        del quantized
        return BuiltVariant(artifact, types, accounting, likeness.agreement(artifact))

    def make_good(
        self, types: Mapping[str, str], name: str, settings: QuantizeSettings, options: Mapping[str, Any] | None = None
    ) -> tuple[BuiltVariant, CalibrationResult]:
        """Write an assignment; with outlier features apart, where that is left to measuring and found to be better.

        Raises:
            CheckFailed: the graph is not what was asked for.
        """
        prepared = self.prepare(types, settings)
        made = self.make(types, prepared, name, options)
        if settings.outlier_features != "auto" or made.agreement["cosine"] >= GOOD_COSINE:
            return made, prepared
        apart = self.prepare(types, settings.model_copy(update={"outlier_features": "keep"}))
        if not apart.facts.get("num_outlier_features"):
            return made, prepared
        other = self.make(types, apart, f"{name}-outliers", options)
        if other.agreement["cosine"] <= made.agreement["cosine"]:
            shutil.rmtree(other.artifact.folder)
            return made, prepared
        without = f"without that, the cosine of outputs is {made.agreement['cosine']:.4f}"
        apart.sentences[-1] += f" ({without})"
        return self.move(other, name), apart

    def keep(self, made: BuiltVariant, drop: float | None) -> None:
        """Write the figures of an assignment beside its folder, for a run that goes on after a stop.

        The stage's working folder is of one model, one set of texts and settings: nothing else decides a try.
        """
        papers = {
            "sha256": sha256_weights(made.artifact.files),
            "card": made.artifact.card.model_dump(mode="json"),
            "types": dict(made.types),
            "agreement": made.agreement,
            "drop": drop,
        }
        write_text(self._papers_of(made.artifact.folder.name), json.dumps(papers))

    def kept(self, name: str, types: Mapping[str, str]) -> tuple[BuiltVariant, float | None] | None:
        """A try of a run that was stopped, with what it loses; None where none was finished."""
        folder = self.bench.work / name
        try:
            papers = json.loads(self._papers_of(name).read_text(encoding="utf-8"))
            card = ArtifactCard.model_validate(papers["card"])
            files = [folder / name for name in card.files]
            if papers["types"] != dict(types) or sha256_weights(files) != papers["sha256"]:
                return None
        except (OSError, ValueError, KeyError, TypeError):
            return None
        artifact = Artifact.draft(folder, card, self.before)
        made = BuiltVariant(artifact, types, account(read_model(artifact.file, numbers=False)), papers["agreement"])
        self.bench.progress.log(f"{name}: kept from the stopped run")
        return made, papers["drop"]

    def _papers_of(self, name: str) -> Path:
        return self.bench.work / f"{name}.json"

    def write(
        self, model: onnx.ModelProto, types: Mapping[str, str], name: str, options: Mapping[str, Any]
    ) -> Artifact:
        """A graph as the draft of an artifact of its own."""
        folder = self.bench.work / name
        shutil.rmtree(folder, ignore_errors=True)  # what a killed run left
        (folder / QUANTIZED).parent.mkdir(parents=True)
        write_model(model, folder / QUANTIZED)
        release_freed_memory()  # what the rewriting took: engines come next
        update = {
            "file": QUANTIZED,
            "precision": precision(self.source, types),
            "lineage": (*self.before.card.lineage, "quantize"),
            "options": dict(options),
            "details": {"bytes_by_type": bytes_by_type(model), "operators": operators(model)},
        }
        return Artifact.draft(folder, self.before.card.model_copy(update=update), self.before)

    def move(self, made: BuiltVariant, name: str) -> BuiltVariant:
        """The same in a folder of another name, in the place of what lay there."""
        folder = self.bench.work / name
        shutil.rmtree(folder, ignore_errors=True)
        move(made.artifact.folder, folder)
        return replace(made, artifact=Artifact.draft(folder, made.artifact.card, self.before))

    @cached_property
    def likeness(self) -> OutputSimilarity:
        """The texts of the agreement check, and the float artifact's answers."""
        return OutputSimilarity(self.before, dev_texts(self.bench.texts, SENTENCES), self.bench.max_length)

    @cached_property
    def _sample(self) -> OutputSimilarity:
        """Texts to learn from, and the float artifact's answers."""
        texts = (
            self.bench.texts.train.first(NUM_ERROR_TEXTS)
            if self.bench.texts is not None
            else dev_texts(self.bench.texts, SENTENCES)
        )
        return OutputSimilarity(self.before, texts, self.bench.max_length)

    def error(self, types: Mapping[str, str], prepared: CalibrationResult) -> float:
        """How far the outputs of an assignment are from the float ones, as a share of their square."""
        quantized = rewrite(prepared.model, types, prepared.options)
        return self._sample.distance(self.write(quantized.model, types, "error", {}))

    @cached_property
    def figure(self) -> float | None:
        """The task's metric of the float artifact on texts kept for choosing; None where nothing is labelled."""
        return self._figure(self.before)

    def drop(self, made: BuiltVariant) -> float:
        """What an assignment loses, as a share: of the task's metric, or, where nothing is labelled, of agreement."""
        if self.figure is None:
            return 1 - made.agreement["cosine"]
        figure = self._figure(made.artifact)
        return math.nan if figure is None else (self.figure - figure) / abs(self.figure or 1.0)

    def _figure(self, artifact: Artifact) -> float | None:
        if self.bench.choose is None:
            return None
        try:
            return self.bench.choose(artifact)
        except UserError:  # nothing is labelled that could be chosen by
            return None
