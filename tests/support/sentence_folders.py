"""Folders as sentence-transformers itself saves them, over tiny models; that library's answers, and ours."""

import json

import numpy as np
import pytest

pytest.importorskip("sentence_transformers")
from sentence_transformers import CrossEncoder, SentenceTransformer
from sentence_transformers.sentence_transformer import modules as models

from bertshrink.model.encoder import Encoder
from bertshrink.model.model_ref import ModelRef
from bertshrink.techniques.export import Export
from tests.support.tiny import bench_of, sentences, tiny_encoder

TEXTS = ["The Good film IS bad", "a book about WATER and time", "we see no way out", *sentences(5)]
PAIRS = list(zip(TEXTS, reversed(TEXTS), strict=True))


def sentence_model(place, *modules, family="bert", **settings):
    """A folder as sentence-transformers itself saves it: Transformer, mean pooling, and whatever else is given."""
    raw = place.parent / f"{place.name}-raw"
    raw.mkdir()
    tiny_encoder(family, "embedding").save(raw)
    made = SentenceTransformer(
        modules=[models.Transformer(str(raw)), *(modules or (models.Pooling(32),))], device="cpu", **settings
    )
    made.save(str(place))
    return place


def cross_encoder(place, num_labels=1, **settings):
    raw = place.parent / f"{place.name}-raw"
    raw.mkdir()
    names = {i: f"LABEL_{i}" for i in range(num_labels)}
    more = {"id2label": names, "label2id": {name: i for i, name in names.items()}}
    tiny_encoder("bert", "classification", **more).save(raw)
    CrossEncoder(str(raw), num_labels=num_labels, device="cpu", **settings).save(str(place))
    return place


def edit(path, **values):
    path.write_text(json.dumps((json.loads(path.read_text()) if path.is_file() else {}) | values))


def theirs(folder, texts=TEXTS):
    return SentenceTransformer(str(folder), device="cpu").encode(texts, show_progress_bar=False)


def ours(model, texts=TEXTS):
    return np.stack([row["sentence_embedding"] for row in model.predict(model.tokenize(texts))])


def everything_made_of(folder, tmp_path):
    """The model itself, one distilled from it whole, saved and loaded, and an ONNX file of it."""
    encoder = Encoder.load(folder)
    (tmp_path / "student").mkdir()
    encoder.save(tmp_path / "student")
    made = Export()(encoder, bench_of(encoder, tmp_path / "work", texts=None))
    (tmp_path / "exported").mkdir()
    made.save(tmp_path / "exported")
    return encoder, Encoder.load(tmp_path / "student"), ModelRef.read(tmp_path / "exported").load()
