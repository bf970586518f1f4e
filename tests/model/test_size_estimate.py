"""Sizes told beforehand against the bytes of files that were made: every family, format and scheme."""

import dataclasses
from pathlib import Path

import pytest
import torch

from bertshrink.cli.app import run
from bertshrink.errors import BertshrinkError
from bertshrink.files.headers import read_onnx
from bertshrink.model.checkpoint_info import CheckpointInfo, read_facts
from bertshrink.model.families import FAMILIES
from bertshrink.model.sizes.encoder_dims import EncoderDims
from bertshrink.model.sizes.parameter_count import converted, facts_of, num_parameters, target_family
from bertshrink.model.sizes.size_estimate import TOLERANCE, of_encoder, of_file
from bertshrink.recipe.from_command_line import recipe_of_command
from bertshrink.recipe.plan import make_plan
from bertshrink.recipe.recipe import read_recipe
from bertshrink.recipe.size_options import FORMATS, Road, roads
from bertshrink.techniques import TECHNIQUES
from bertshrink.techniques.base import Workbench
from bertshrink.techniques.export import Export
from bertshrink.techniques.factorize import Factorize
from bertshrink.techniques.quantize import Quantize
from tests.support.families import SERVED
from tests.support.tiny import bench_of, tiny_encoder

pytestmark = pytest.mark.usefixtures("one_thread")

SCHEMES = ("dynamic-int8", "static-int8", "block-int8", "block-int4", "float16", "bfloat16")
MINILM = CheckpointInfo(
    Path(), FAMILIES["bert"], EncoderDims(6, 384, 12, 1536, 30522, 384, 512, 6), {"type_vocab_size": 2}, "embedding"
)


def learnt(family, task, **more):
    """A tiny encoder whose norms and biases differ, as those of trained ones do: an exporter stores equal ones once."""
    encoder = tiny_encoder(family, task, **more)
    with torch.no_grad():
        for parameter in encoder.model.parameters():
            if parameter.dim() == 1:
                parameter += 0.05 * torch.randn_like(parameter)
    return encoder


def size(artifact):
    return artifact.file.stat().st_size


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "task"),
    [(name, "classification") for name in FAMILIES]
    + [("bert", "embedding"), ("bert", "mlm"), ("electra", "token-classification"), ("albert", "question-answering")],
)
def test_every_file_has_the_bytes_that_were_told(family, task, tmp_path):
    encoder = learnt(family, task)
    encoder.save(tmp_path / "m")
    facts = read_facts(tmp_path / "m", task)
    before = of_encoder(facts)
    assert before.num_bytes == pytest.approx((tmp_path / "m" / "model.safetensors").stat().st_size, rel=TOLERANCE)
    assert before.num_bytes >= (tmp_path / "m" / "model.safetensors").stat().st_size, "a size that is kept is kept"

    artifact = Export()(encoder, Workbench(None, None, tmp_path / "x"))
    exported = Export().sizes(before)
    assert exported.num_bytes == pytest.approx(size(artifact), rel=TOLERANCE)
    read = of_file(read_onnx(artifact.file), family)
    assert read.num_bytes == size(artifact)
    assert read.is_float
    for scheme in SCHEMES if task in ("classification", "mlm") else SCHEMES[:1]:
        settings = Quantize(scheme=scheme, rounding="nearest", min_cosine=-1)
        made = settings(artifact, Workbench(None, None, tmp_path / scheme))
        assert settings.sizes(exported).num_bytes == pytest.approx(size(made), rel=TOLERANCE), scheme
        assert settings.sizes(read).num_bytes == pytest.approx(size(made), rel=TOLERANCE), scheme
        assert of_file(read_onnx(made.file), family) is None or not of_file(read_onnx(made.file), family).is_float


@pytest.mark.slow
@pytest.mark.parametrize("family", ["bert", "distilbert", "roberta", "electra"])
def test_the_bytes_of_a_whole_road(family, tmp_path):
    """Narrow tables, fewer layers, 16 bits; and 8 bits with tables in 4."""
    encoder = learnt(family, "classification", hidden_size=64, **({"dim": 64} if family == "distilbert" else {}))
    encoder.save(tmp_path / "m")
    facts = read_facts(tmp_path / "m")
    narrow = Factorize(rank=16)(encoder.copy(), bench_of(encoder, tmp_path / "w"))
    narrow.save(tmp_path / "narrow")
    sizes = Factorize(rank=16).sizes(of_encoder(facts))
    assert sizes.num_bytes == pytest.approx((tmp_path / "narrow" / "model.safetensors").stat().st_size, rel=TOLERANCE)
    again = read_facts(tmp_path / "narrow")
    assert of_encoder(again).num_bytes == sizes.num_bytes
    half = Export(precision="float16")
    assert half.sizes(sizes).num_bytes == pytest.approx(
        size(half(narrow, Workbench(None, None, tmp_path / "h"))), rel=TOLERANCE
    )
    small = Quantize(embeddings="int4", rounding="nearest", min_cosine=-1)
    plain = Export()(narrow, Workbench(None, None, tmp_path / "p"))
    made = small(plain, Workbench(None, None, tmp_path / "q"))
    assert small.sizes(Export().sizes(sizes)).num_bytes == pytest.approx(size(made), rel=TOLERANCE)


@pytest.mark.parametrize(("family", "task"), SERVED)
def test_parameters_are_counted_exactly(family, task):
    encoder = tiny_encoder(family, task)
    assert num_parameters(facts_of(encoder)) == sum(parameter.numel() for parameter in encoder.model.parameters())


@pytest.mark.parametrize(
    ("name", "task", "sizes"),
    [
        ("convbert", "mlm", {"num_groups": 2}),
        ("mobilebert", "mlm", {"trigram_input": False, "use_bottleneck_attention": True}),
        ("mobilebert", "classification", {"key_query_shared_bottleneck": False, "num_feedforward_networks": 2}),
        ("squeezebert", "mlm", {"q_groups": 2, "output_groups": 1}),
        ("deberta-v2", "mlm", {"share_att_key": False, "position_biased_input": True, "conv_kernel_size": 3}),
    ],
)
def test_parameters_are_counted_by_the_configuration(name, task, sizes):
    encoder = tiny_encoder(name, task, num_hidden_layers=2, **sizes)
    assert num_parameters(facts_of(encoder)) == sum(parameter.numel() for parameter in encoder.model.parameters())


@pytest.mark.slow
def test_groups_of_a_dense_layer_are_told_as_they_are_quantized(tmp_path):
    sizes = {"hidden_size": 128, "intermediate_size": 512, "num_attention_heads": 4}
    encoder = learnt("convbert", "classification", num_hidden_layers=1, num_groups=2, **sizes)
    exported = Export().sizes(of_encoder(facts_of(encoder)))
    artifact = Export()(encoder, Workbench(None, None, tmp_path / "x"))
    settings = Quantize(rounding="nearest", min_cosine=-1)
    made = settings(artifact, Workbench(None, None, tmp_path / "q"))
    assert exported.num_bytes == pytest.approx(size(artifact), rel=TOLERANCE)
    assert settings.sizes(exported).num_bytes == pytest.approx(size(made), rel=TOLERANCE)


def test_what_cannot_be_told_is_not_told():
    before = of_encoder(MINILM)
    assert Export(to="ort").sizes(before) is None
    assert Export(to="executorch").sizes(before) is None
    assert Quantize().sizes(before) is None, "a checkpoint is exported first"
    assert Quantize().sizes(Export(precision="float16").sizes(before)) is None, "no float32 file"


# Roads


def test_roads_keep_the_limit_and_none_cuts_more_than_another():
    found = roads(MINILM, 10e6)
    assert found.fit and all(road.num_bytes <= 10e6 for road in found.fit)
    for road in found.fit:
        assert not any(road.cuts_more_than(other) for other in found.fit)
    assert [road.layers for road in found.fit] == sorted((road.layers for road in found.fit), reverse=True)
    assert {road.format for road in found.fit} == set(FORMATS)
    first = found.fit[0]
    assert (first.layers, first.rank, first.format) == (6, 192, "block-int4")
    assert first.commands("M") == [
        "bertshrink factorize M --data DATA --rank 192 -o small",
        "bertshrink quantize small --scheme block-int4 -o small-block-int4",
    ]


def test_a_roads_end_is_its_techniques_own_word():
    for road in roads(MINILM, 12e6).fit:
        sizes = of_encoder(MINILM)
        if road.cuts_tables:
            sizes = TECHNIQUES["factorize"](rank=road.rank).sizes(sizes)
        if road.cuts_layers:
            sizes = TECHNIQUES["distill"](layers=road.layers).sizes(sizes)
        for name, settings in FORMATS[road.format]:
            sizes = TECHNIQUES[name](**settings).sizes(sizes)
        assert sizes.num_bytes == road.num_bytes


def test_roads_at_the_ends():
    assert [road.commands("M") for road in roads(MINILM, 1e9).fit] == [[]], "it fits as it is"
    nothing = roads(MINILM, 1e5)
    assert nothing.fit == [] and list(nothing.misses) == list(FORMATS)
    assert all(least > 1e5 for least in nothing.misses.values())
    shared = converted(MINILM, target_family("bert", "embedding"), num_groups=1)
    assert {road.format for road in roads(shared, 40e6).fit} <= set(FORMATS), "some depths cannot keep the sharing"
    file = Export().sizes(of_encoder(MINILM))
    assert [(road.layers, road.rank, road.format) for road in roads(file, 30e6).fit] == [(None, None, "int8")]
    assert roads(file, 1e9).fit[0].commands("out") == []
    assert Road(None, None, "int8", 1).commands("a b") == ["bertshrink quantize 'a b' -o int8"]


# Commands


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny_encoder(hidden_size=64).save(tmp_path / "m")
    (tmp_path / "d.tsv").write_text("sentence\tlabel\nthe film\tpositive\n")
    return tmp_path


@pytest.mark.subprocess
@pytest.mark.training
def test_a_size_out_of_reach_is_refused_before_anything_is_made(here, capsys):
    code = run(["quantize", "./m", "--auto", "--max-size", "60 kB", "-o", "out"])
    told = capsys.readouterr().err
    assert code == 2
    assert "error: `max_size` is 60.0 kB; the smallest file of `quantize` takes" in told
    assert "--> --max-size" in told
    assert "bertshrink distill ./m --data DATA --layers" in told
    assert "bertshrink inspect ./m --size '60.0 kB'" in told
    assert not (here / "runs").exists() and not (here / "out").exists()
    assert run(["quantize", "./m", "--auto", "--max-size", "1 kB"]) == 2
    assert "start from a smaller model" in capsys.readouterr().err
    with pytest.raises(BertshrinkError, match="`max_size` is 10 kB") as caught:
        make_plan(recipe_of_command("factorize", "./m", {"max_size": "10 kB"}, {"data": "d.tsv"}))
    assert caught.value.where == "--max-size"
    assert "layers that share weights" in caught.value.hint


def test_a_recipes_limit_is_held_where_its_stages_have_come_by_then(here):
    text = "model: ./m\ndata: {train: d.tsv, dev: d.tsv}\nstages:\n  - distill: {layers: 1}\n  - export\n"
    text += "  - quantize: {auto: true, max_size: 90 kB}\n"
    (here / "r.yaml").write_text(text)
    assert make_plan(read_recipe(here / "r.yaml"))
    (here / "r.yaml").write_text(text.replace("layers: 1", "layers: 4"))
    with pytest.raises(
        BertshrinkError, match=r"`max_size` is 90\.0 kB; the smallest file of `quantize` takes"
    ) as caught:
        make_plan(read_recipe(here / "r.yaml"))
    assert "r.yaml:6:" in caught.value.where


@pytest.mark.subprocess
def test_inspect_shows_roads(here, capsys):
    import json

    assert run(["inspect", "./m", "--size", "100 kB"]) == 0
    told = capsys.readouterr().out
    assert "what fits into 100 kB, smallest change first" in told
    assert "block-int4" in told and "bertshrink quantize" in told
    assert max(map(len, told.splitlines())) <= 120
    assert run(["inspect", "./m", "--size", "100 kB", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["limit"] == 100_000
    assert all(road["num_bytes"] <= 100_000 and road["commands"] for road in found["fit"])
    assert run(["inspect", "./m", "--size", "5"]) == 2
    assert "--> --size" in capsys.readouterr().err


@pytest.mark.subprocess
def test_roads_need_no_torch_and_no_weights(here):
    import subprocess
    import sys

    (here / "m" / "model.safetensors").unlink()
    code = (
        "import sys; from bertshrink.cli.app import run; code = run(['inspect', './m', '--size', '100 kB', '--json']);"
        "assert not {'torch', 'transformers', 'onnx', 'onnxruntime'} & set(sys.modules); sys.exit(code)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    assert dataclasses.is_dataclass(Road)
