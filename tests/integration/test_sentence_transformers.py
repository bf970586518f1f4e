"""A sentence encoder stays one: what bertshrink writes loads with plain SentenceTransformer, with equal vectors."""

import json

import numpy as np
import pytest

from bertshrink.cli.app import run
from bertshrink.model.checkpoint_info import read_facts
from bertshrink.model.encoder import Encoder
from tests.support.tiny import sentences, tiny_encoder

sentence_transformers = pytest.importorskip("sentence_transformers")

MODULES = [
    {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
    {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
]


def sentence_folder(folder, family="bert", mode="mean", normalize=True):
    """A folder in the layout that sentence-transformers has written since version 2."""
    encoder = tiny_encoder(family, "embedding")
    encoder.save(folder)
    (folder / "modules.json").write_text(json.dumps(MODULES if normalize else MODULES[:2]))
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 48, "do_lower_case": false}')
    pooling = folder / "1_Pooling"
    pooling.mkdir(exist_ok=True)
    keys = {"mean": "pooling_mode_mean_tokens", "cls": "pooling_mode_cls_token", "max": "pooling_mode_max_tokens"}
    config = {"word_embedding_dimension": 32} | {key: name == mode for name, key in keys.items()}
    (pooling / "config.json").write_text(json.dumps(config))
    return folder


def vectors_of(folder, texts):
    model = sentence_transformers.SentenceTransformer(str(folder), device="cpu")
    return model.encode(texts, show_progress_bar=False)


@pytest.mark.slow
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("mode", ["mean", "cls", "max"])
@pytest.mark.parametrize("family", ["bert", "distilbert"])
def test_our_vectors_are_sentence_transformers_own(family, mode, normalize, tmp_path):
    folder = sentence_folder(tmp_path / "teacher", family, mode, normalize)
    texts = sentences(6)
    encoder = Encoder.load(folder)
    assert encoder.task == "embedding" and encoder.max_length == 48
    mine = np.stack([out["sentence_embedding"] for out in encoder.predict(encoder.tokenize(texts))])
    assert np.allclose(mine, vectors_of(folder, texts), atol=1e-5)


@pytest.mark.subprocess
@pytest.mark.training
def test_a_distilled_sentence_encoder_loads_with_sentence_transformers(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sentence_folder(tmp_path / "teacher")
    (tmp_path / "texts.txt").write_text("\n".join(sentences(60)) + "\n")
    command = ["distill", "teacher", "--data", "texts.txt", "--layers", "2", "--epochs", "1", "--no-latency", "-q"]
    assert run([*command, "-o", "out"]) == 0
    assert read_facts(tmp_path / "out").sentence.kind == "encoder"
    texts = sentences(8, seed=5)
    encoder = Encoder.load(tmp_path / "out")
    mine = np.stack([out["sentence_embedding"] for out in encoder.predict(encoder.tokenize(texts))])
    theirs = vectors_of(tmp_path / "out", texts)
    assert theirs.shape == (8, 32) and np.allclose(mine, theirs, atol=1e-5)
    assert encoder.shape.num_layers == 2
