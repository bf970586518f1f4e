"""Ways to run a model as a user writes them."""

from pathlib import Path

import pytest

from bertshrink.engines import ENGINES
from bertshrink.engines.torch_options import TorchOptions
from bertshrink.errors import UserError
from bertshrink.meters.latency.engine_variants import WORDS, expand_variants, read_variant, variants_of
from bertshrink.worker.job import RunSpec


def launch(engine, path, options=None):
    return RunSpec(engine, Path(path), options or {}, "float32", 20, ("input_ids",), 64)


FOLDER = launch("torch", "/m", {"auto_class": "AutoModel", "outputs": ["logits"]})
ONNX = launch("onnxruntime", "/m.onnx", {"config": {"a": "b"}})
PTE = launch("executorch", "/m.pte")


def test_every_engine_has_its_words():
    assert set(WORDS) == set(ENGINES)


@pytest.mark.parametrize(
    ("text", "label", "options"),
    [
        ("torch", "torch", {}),
        ("torch:bfloat16", "torch:bfloat16", {"dtype": "bfloat16"}),
        ("torch:compiled, bfloat16", "torch:bfloat16,compiled", {"dtype": "bfloat16", "compile": "default"}),
        ("torch:float16,graphs", "torch:float16,graphs", {"dtype": "float16", "cuda_graphs": True}),
        ("torch:reduce-overhead", "torch:reduce-overhead", {"compile": "reduce-overhead"}),
        ("openvino:bfloat16", "openvino:bfloat16", {"precision": "bfloat16"}),
        (" onnxruntime ", "onnxruntime", {}),
    ],
)
def test_what_is_asked_for(text, label, options):
    found = read_variant(text)
    assert (found.label, found.options) == (label, options)
    assert read_variant(found.label) == found


@pytest.mark.parametrize("words", [word for word in WORDS["torch"]])
def test_pytorch_takes_every_word(words):
    TorchOptions.read(read_variant(f"torch:{words}").options | {"device": "cuda"})


@pytest.mark.parametrize(
    ("text", "what", "hint"),
    [
        ("troch", "no engine `troch`", "did you mean `torch`"),
        ("torch:bf61", "no option `bf61`", "did you mean `bfloat16`"),
        ("torch:complied,bfloat16", "no option `complied`", "did you mean `compiled`"),
        ("torch:", "an option is missing", "torch:bfloat16,compiled"),
        ("torch:bfloat16,", "an option is missing", "torch:bfloat16,compiled"),
        ("torch:bfloat16,float32", "`bfloat16` and `float32` exclude each other", "leave one"),
        ("torch:bfloat16,bfloat16", "an option appears twice", "leave one"),
        ("torch:eager,compiled", "exclude each other", "leave one"),
        ("torch:graphs,reduce-overhead", "both record CUDA graphs", "leave one"),
        ("executorch:bfloat16", "no option `bfloat16`", "takes no options"),
    ],
)
def test_what_cannot_be_meant(text, what, hint):
    with pytest.raises(UserError, match=what) as caught:
        read_variant(text)
    assert caught.value.where == "--engine"
    assert hint in caught.value.hint


def test_a_model_runs_by_the_engines_that_open_it():
    asked = [read_variant(text) for text in ("torch:bfloat16", "onnxruntime", "openvino", "executorch")]
    folder, onnx = variants_of(FOLDER, asked), variants_of(ONNX, asked)
    assert list(folder) == ["torch:bfloat16"]
    assert folder["torch:bfloat16"].options == {**FOLDER.options, "dtype": "bfloat16"}
    assert list(onnx) == ["onnxruntime", "openvino"]
    assert onnx["onnxruntime"].options == ONNX.options, "its own engine keeps the card's options"
    assert (onnx["openvino"].engine, onnx["openvino"].options) == ("openvino", {})
    assert onnx["openvino"].path == ONNX.path
    assert list(variants_of(PTE, asked)) == ["executorch"]
    assert list(variants_of(launch("onnxruntime", "/m.ort"), asked)) == ["onnxruntime"]


def test_models_times_ways():
    models = {"teacher": FOLDER, "small": ONNX}
    assert expand_variants(models, []) == models
    found = expand_variants(models, ["torch", "torch:bfloat16,compiled", "onnxruntime"])
    assert list(found) == ["teacher (torch)", "teacher (torch:bfloat16,compiled)", "small (onnxruntime)"]
    assert list(expand_variants({"small": ONNX}, ["openvino"])) == ["small"], "one way needs no name"
    assert list(expand_variants({"teacher": FOLDER}, ["torch:graphs"], on_gpu=True)) == ["teacher"]


@pytest.mark.parametrize(
    ("models", "asked", "what", "hint"),
    [
        ({"small": ONNX}, ["torch"], "none of torch runs `small`", "onnxruntime, openvino"),
        ({"teacher": FOLDER}, ["openvino", "onnxruntime"], "none of openvino, onnxruntime runs", "torch"),
        ({"teacher": FOLDER}, ["torch", "openvino"], "`openvino` runs none of the models", ".onnx"),
        ({"teacher": FOLDER}, ["torch:bfloat16", "torch: bfloat16"], "requested twice", "leave one"),
        ({"teacher": FOLDER}, ["torch:graphs"], "needs a GPU", "--target gpu"),
    ],
)
def test_what_no_model_can_run(models, asked, what, hint):
    with pytest.raises(UserError, match=what) as caught:
        expand_variants(models, asked)
    assert hint in caught.value.hint


def test_exact_int8_is_a_setting_of_the_session():
    found = read_variant("onnxruntime:exact-int8").options
    assert found == {"config": {"session.x64quantprecision": "1"}}
