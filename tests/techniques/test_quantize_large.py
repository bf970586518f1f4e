"""Quantization of a float file that is two files: the bytes that are made of one, and one file where they fit."""

import shutil

import pytest

from bertshrink.data.texts import Split, TextDataset
from bertshrink.model.artifact import Artifact
from bertshrink.onnx_graph import external_data
from bertshrink.techniques.base import Workbench
from bertshrink.techniques.export import Export
from bertshrink.techniques.quantize import Quantize
from tests.support.tiny import sentences, tiny_encoder

pytestmark = pytest.mark.slow

LIMIT = 75_000
"""Below the float file of a tiny encoder of two layers, above what any scheme makes of it."""


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """One file and two files of the same encoder."""
    folder, made = tmp_path_factory.mktemp("exported"), []
    for limit in (external_data.MAX_FILE_BYTES, LIMIT):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(external_data, "MAX_FILE_BYTES", limit)
            encoder = tiny_encoder("bert", "embedding", num_hidden_layers=2)
            made.append(Export()(encoder, Workbench(None, None, folder / str(limit))))
    assert [len(one.files) for one in made] == [1, 2]
    return made


def quantized(artifact, folder, **settings):
    split = Split(tuple(sentences(6)))
    return Quantize(min_cosine=-1, **settings)(artifact, Workbench(TextDataset("tests", split, split), None, folder))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"embeddings": "int4"},
        {"scheme": "static-int8"},
        {"scheme": "static-int8", "smoothquant_alpha": 0.5, "range_method": "min-max"},
        {"scheme": "block-int8", "embeddings": "float32"},
        {"scheme": "block-int4"},
        {"rounding": "gptq"},
        {"scheme": "float16"},
    ],
    ids=lambda settings: "-".join(map(str, settings.values())) or "dynamic-int8",
)
def test_it_is_what_is_made_of_one_file_byte_for_byte(exported, tmp_path, monkeypatch, settings):
    of_one, of_two = (quantized(one, tmp_path / str(at), **settings) for at, one in enumerate(exported))
    assert of_two.card.data is None
    assert of_two.file.read_bytes() == of_one.file.read_bytes()
    monkeypatch.setattr(external_data, "MAX_FILE_BYTES", 20_000)
    split = quantized(exported[1], tmp_path / "split", **settings)
    assert split.card.data == "onnx/model_quantized.onnx_data"
    assert split.card.details["agreement"] == of_one.card.details["agreement"]
    assert {path.name for path in (tmp_path / "split").iterdir()} == {"quantize"}, "nothing of calibration is left"


def test_what_a_search_tries_may_be_two_files_each(exported, tmp_path, monkeypatch):
    monkeypatch.setattr(external_data, "MAX_FILE_BYTES", 20_000)
    made = quantized(exported[1], tmp_path, scheme="block-int4", max_metric_drop="0.0001%")
    assert len(made.files) == 2
    assert made.num_bytes == sum(path.stat().st_size for path in made.files)
    shutil.copytree(made.folder, tmp_path / "copy")
    assert Artifact.load(tmp_path / "copy").predict([{"input_ids": [1, 5, 2], "attention_mask": [1, 1, 1]}])
