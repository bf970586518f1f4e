"""What the float graph's activations are like on real text: run it with those values as outputs, and look at them.

Each activation is handed over batch by batch, (tokens, inputs), without padding: what is at padding is nobody's
text, and a range or a Gram matrix that contains it fits the model less well. Nothing is kept here, so memory is that of
one small batch however many texts there are; what is gathered (a histogram, largest magnitudes, a Gram matrix) is the
caller's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from numpy.typing import NDArray

from bertshrink.data.texts import Split
from bertshrink.engines import engine
from bertshrink.files.atomic import output_errors
from bertshrink.files.onnx_data_file import remove
from bertshrink.hardware import release_freed_memory
from bertshrink.model.batches import Row, batch_by_length, pad
from bertshrink.model.fixed_shape_session import pad_to_shape
from bertshrink.onnx_graph.encoder_graph import fixed_shape
from bertshrink.onnx_graph.external_data import stream
from bertshrink.onnx_graph.weights import without_unread
from bertshrink.techniques.quantize.similarity import SENTENCES

if TYPE_CHECKING:
    from bertshrink.model.artifact import Artifact
    from bertshrink.techniques.base import Workbench

Floats = NDArray[np.floating[Any]]

_BATCH_TOKENS = 512
"""Tokens run at a time: of a 12-layer model 768 wide, all activations of so many take 130 MB."""


@dataclass(frozen=True)
class ActivationObserver:
    """Texts to calibrate with, as tokens.

    Attributes:
        rows: not padded.
        pad_id: for padding them.
        work: a folder for a file that is deleted again.
        is_real: whether they are the task's own texts.
    """

    rows: list[Row]
    pad_id: int
    work: Path
    is_real: bool

    @property
    def num_tokens(self) -> int:
        """Tokens, all rows together."""
        return sum(len(row["input_ids"]) for row in self.rows)

    @property
    def words(self) -> str:
        """What they are, for people."""
        if self.is_real:
            return f"{len(self.rows)} training texts of {self.num_tokens} tokens"
        return (
            f"{len(self.rows)} built-in sentences, because no texts are named (`data`): they are few and "
            "not from your task"
        )

    def watch(self, model: onnx.ModelProto, takers: Mapping[str, Callable[[Floats], None]]) -> None:
        """Run a float graph on the texts and hand over what it computes.

        Args:
            takers: value name -> what takes each batch of it, (tokens, inputs) float32; without any nothing runs.
        """
        if not takers:
            return
        path = self.work / "calibration.onnx"
        self.work.mkdir(parents=True, exist_ok=True)
        try:
            with output_errors(path):  # no check: outputs of unknown rank are ONNX Runtime's to accept
                stream(_watched(model, list(takers)), path)
            session = engine("onnxruntime").load(str(path))
            shape = fixed_shape(model)
            for batch in batch_by_length([len(row["input_ids"]) for row in self.rows], _BATCH_TOKENS, shape[0]):
                feeds = pad_to_shape(pad([self.rows[i] for i in batch], self.pad_id), shape, self.pad_id)
                values = session.run(feeds)
                mask_BL = feeds["attention_mask"][: len(batch)].astype(bool)
                for name, take in takers.items():
                    take(_at_tokens(values[name][: len(batch)], mask_BL))
            del session
        finally:
            remove(path)
            release_freed_memory()


def calibration(artifact: Artifact, bench: Workbench, num_texts: int) -> ActivationObserver:
    """The first training texts, or the sentences of `similarity` where there are none."""
    texts = bench.texts.train.first(num_texts) if bench.texts is not None else Split(SENTENCES)
    rows = artifact.tokenize(texts.texts, texts.pairs, bench.max_length)
    return ActivationObserver(rows, artifact.tokenizer.pad_token_id or 0, bench.work, bench.texts is not None)


def keep_largest(largest: dict[str, Floats], value: str, values_TI: Floats) -> None:
    """Take a batch's largest magnitudes into account."""
    size_I = np.abs(values_TI).max(axis=0)
    largest[value] = np.maximum(largest.get(value, size_I), size_I)


def _watched(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """The part of a graph that leads to some of its values, with these as its outputs."""
    cut = onnx.ModelProto()
    cut.CopyFrom(model)
    cut.graph.ClearField("output")
    kind = onnx.TensorProto.FLOAT
    cut.graph.output.extend(onnx.helper.make_tensor_value_info(name, kind, None) for name in names)
    return without_unread(cut)


def _at_tokens(values: NDArray[Any], mask_BL: NDArray[np.bool_]) -> Floats:
    """(B, L, I) at tokens, or (B, I), as (tokens, I)."""
    if values.ndim == 3 and values.shape[:2] == mask_BL.shape:
        return values[mask_BL]
    return values.reshape(-1, values.shape[-1])
