"""Vectors that a model gives elsewhere, as a file; what is loaded here is compared with them.

    {"texts": ["Plants create oxygen.", "..."], "vectors": [[0.013, -0.442, ...], [...]]}

A text is what the model's caller gives it; the model's default prompt is put in front here, as in everything else. Its
vector is the one that the model makes of it, of any length: only directions are compared. The least cosine of all texts
has to reach `LEAST_COSINE`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bertshrink.errors import CheckFailed, UserError
from bertshrink.files.bounded_text import Reader
from bertshrink.model.tasks import TASKS

if TYPE_CHECKING:
    from bertshrink.model.encoder import Encoder

REFERENCE_VECTORS = "reference_vectors.json"
"""Their file in a model's folder."""
LEAST_COSINE = 0.999
"""Of tiny random models a lost scaling of positions leaves 0.979 to 0.997, float16 weights 0.999999 (in the tests)."""

_MOST_TEXTS = 1000
_FILE = Reader(
    UserError, "the reference vectors cannot be read", 'write `{"texts": ["..."], "vectors": [[0.1, ...]]}` as JSON'
)
NO_REFERENCE = "no reference vectors: nothing but the names and shapes of its weights shows that both compute the same"
"""What is told of a model that asks for code of its own, where there is nothing to compare with."""


@dataclass(frozen=True)
class ReferenceVectors:
    """Texts and the vectors that they have elsewhere, one for each; `is_named`: not found in the model's own folder."""

    path: Path
    texts: tuple[str, ...]
    vectors: tuple[tuple[float, ...], ...]
    is_named: bool = False

    @classmethod
    def read(cls, path: Path, *, is_named: bool = False) -> ReferenceVectors:
        """Read a file. Raises UserError: there is none, or it is not as in this file's opening."""
        about = _FILE.read_json(path)
        if not isinstance(about, dict) or set(about) != {"texts", "vectors"}:
            raise _wrong(path, "it is not an object of `texts` and `vectors` alone")
        texts, vectors = about["texts"], about["vectors"]
        if not (isinstance(texts, list) and texts and all(isinstance(text, str) for text in texts)):
            raise _wrong(path, "`texts` is not a list of texts")
        if len(texts) > _MOST_TEXTS:
            raise _wrong(path, f"it has {len(texts)} texts, and {_MOST_TEXTS} are enough")
        if not (isinstance(vectors, list) and len(vectors) == len(texts) and all(map(_is_vector, vectors))):
            raise _wrong(path, "`vectors` is not a list of as many lists of numbers, each with one that is not 0")
        if len({len(vector) for vector in vectors}) > 1:
            raise _wrong(path, "its vectors are not of one length")
        return cls(path, tuple(texts), tuple(tuple(map(float, vector)) for vector in vectors), is_named)

    def compare(self, encoder: Encoder) -> str:
        """Compare an encoder's vectors with them; returns what came of it, as a sentence.

        Raises:
            UserError: the encoder's vectors have another number of numbers.
            CheckFailed: a cosine is below `LEAST_COSINE`.
        """
        import numpy as np

        rows = encoder.predict(encoder.tokenize(self.texts))
        mine = np.stack([row["sentence_embedding"] for row in rows]).astype(np.float64)
        theirs = np.array(self.vectors)
        if mine.shape != theirs.shape:
            what = f"they have {theirs.shape[1]} numbers each, and the model's vectors {mine.shape[1]}"
            raise _wrong(self.path, what)
        lengths = np.linalg.norm(mine, axis=1) * np.linalg.norm(theirs, axis=1)
        cosines = (mine * theirs).sum(axis=1) / np.where(lengths == 0, 1.0, lengths)
        worst = int(np.argmin(cosines))
        if not cosines[worst] >= LEAST_COSINE:
            raise CheckFailed(
                f"the loaded model is not the one of the reference vectors: the cosine of `{self.texts[worst][:40]}` "
                f"is {cosines[worst]:.4f}, and at least {LEAST_COSINE} is asked for",
                where=str(self.path),
                hint="if the vectors are this model's (same prompt, same pooling), its code computes something else "
                "than the stock class: give an ONNX file of it",
            )
        num = len(self.texts)
        return (
            f"compared with {num} reference vector{'s' if num > 1 else ''} of {self.path.name}: the least cosine is "
            f"{cosines[worst]:.6f} (at least {LEAST_COSINE} is asked for)"
        )


def reference_of(folder: Path, task: str, named: Path | None) -> ReferenceVectors | None:
    """The reference vectors of an encoder whose task gives vectors: those that are named, else those of its folder.

    Raises:
        UserError: they cannot be read, or are named for a task that gives no vector of a text.
    """
    if not TASKS[task].is_vector:
        if named is None:
            return None
        raise UserError(
            f"reference vectors are compared where a model gives a vector for a text, and its task is `{task}`",
            where=str(named),
            hint="compare the encoder alone: `bertshrink inspect MODEL --task embedding --reference FILE`",
        )
    path = named or folder / REFERENCE_VECTORS
    return ReferenceVectors.read(path, is_named=named is not None) if named is not None or path.exists() else None


def _is_vector(value: object) -> bool:
    if not isinstance(value, list) or not all(type(number) in (int, float) for number in value):
        return False
    return all(map(math.isfinite, value)) and any(value)


def _wrong(path: Path, what: str) -> UserError:
    return UserError(f"the reference vectors in `{path.name}` are wrong: {what}", where=str(path), hint=_FILE.hint)
