"""What stands behind the Transformer in modules.json: each pooling and layer gives sentence-transformers' vectors."""

import json

import numpy as np
import pytest
import torch

pytest.importorskip("sentence_transformers")
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer import modules as models

from bertshrink.cli.app import run
from bertshrink.data.texts import TextDataset
from bertshrink.engines.torch_session import pool
from bertshrink.errors import UnsafeModel, UserError
from bertshrink.meters.latency.launch import launch_of
from bertshrink.meters.size import measure
from bertshrink.model.checkpoint_info import read_facts
from bertshrink.model.encoder import Encoder
from bertshrink.model.folder.layout import QUANTIZED
from bertshrink.model.sizes.parameter_count import num_parameters
from bertshrink.techniques.distill import Distill
from bertshrink.techniques.export import Export
from bertshrink.techniques.export.onnx import metadata
from bertshrink.techniques.factorize import Factorize
from bertshrink.techniques.finetune import Finetune
from bertshrink.techniques.quantize import Quantize
from bertshrink.techniques.share import Share
from tests.support.sentence_folders import TEXTS, edit, everything_made_of, ours, sentence_model, theirs
from tests.support.tiny import bench_of, tiny_pairs

MODES = models.Pooling.POOLING_MODES
CHAINS = {
    "the last token": lambda: [models.Pooling(32, pooling_mode="lasttoken")],
    "all poolings joined": lambda: [models.Pooling(32, pooling_mode=tuple(reversed(MODES)))],
    "a dense layer with tanh": lambda: [models.Pooling(32), models.Dense(32, 16)],
    "without a bias, then unit length": lambda: [
        models.Pooling(32, pooling_mode="cls"),
        models.Dense(32, 48, bias=False, activation_function=None),
        models.Normalize(),
    ],
    "a norm": lambda: [models.Pooling(32), models.LayerNorm(32)],
    "all of them, cut": lambda: [
        models.Pooling(32, pooling_mode=("max", "mean")),
        models.Dense(64, 32, activation_function=torch.nn.GELU()),
        models.LayerNorm(32),
        models.Dropout(0.3),
        models.Normalize(),
        models.Dense(32, 24, activation_function=torch.nn.SiLU()),
        models.Normalize(),
    ],
    "residual": lambda: [
        models.Pooling(32),
        models.Dense(32, 32, activation_function=torch.nn.ReLU(), use_residual=True),
        models.Dense(32, 8, activation_function=torch.nn.Identity(), use_residual=True),
    ],
}


def chain_folder(place, name, **settings):
    """The folder of a chain, the weights of its norms not those of the start."""
    torch.manual_seed(1)
    made = CHAINS[name]()
    for module in made:
        if isinstance(module, models.LayerNorm):
            torch.nn.init.normal_(module.norm.weight)
            torch.nn.init.normal_(module.norm.bias)
    return sentence_model(place, *made, **settings)


@pytest.mark.slow
@pytest.mark.parametrize("name", CHAINS)
def test_every_chain_gives_the_vectors_of_sentence_transformers(name, tmp_path):
    folder = chain_folder(tmp_path / "m", name, truncate_dim=20 if name == "all of them, cut" else None)
    wanted = theirs(folder)
    for model in everything_made_of(folder, tmp_path):
        assert ours(model).shape == wanted.shape
        assert np.allclose(ours(model), wanted, atol=1e-5), type(model)
    assert np.allclose(theirs(tmp_path / "student"), wanted, atol=1e-5), "the saved folder says the same"


def test_a_pooling_looks_at_tokens_alone():
    torch.manual_seed(0)
    hidden, mask = torch.randn(3, 5, 8), torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 0, 0, 0, 0]])
    noise = torch.where(mask.bool()[..., None], hidden, 1e3)
    for mode in MODES:
        wanted = models.Pooling(8, pooling_mode=mode)({"token_embeddings": hidden, "attention_mask": mask})
        assert torch.allclose(pool(hidden, mask, mode, False), wanted["sentence_embedding"], atol=1e-6), mode
        assert torch.allclose(pool(noise, mask, mode, False), pool(hidden, mask, mode, False), atol=1e-3), mode


def test_old_keys_are_joined_in_their_own_order(tmp_path):
    """The booleans of version 5 and before: cls, max, mean, in whatever order they are written; none of them: mean."""
    folder = sentence_model(tmp_path / "m")
    path = folder / "1_Pooling" / "config.json"
    for keys, modes in (
        (
            ("pooling_mode_mean_tokens", "pooling_mode_lasttoken", "pooling_mode_cls_token"),
            ("cls", "mean", "lasttoken"),
        ),
        (("pooling_mode_weightedmean_tokens",), "weightedmean"),
        ((), "mean"),
    ):
        path.write_text(json.dumps({"word_embedding_dimension": 32} | dict.fromkeys(keys, True)))
        assert read_facts(folder).pooling.mode == modes
        assert np.allclose(ours(Encoder.load(folder)), theirs(folder), atol=1e-5)
    path.write_text(json.dumps({"word_embedding_dimension": 32, "pooling_mode": "max", "pooling_mode_cls_token": True}))
    assert read_facts(folder).pooling.mode == "max", "the newer key alone counts, as in that library"


@pytest.mark.slow
def test_the_weights_of_layers_are_quantized_and_counted_like_all_others(tmp_path):
    folder = sentence_model(tmp_path / "m", models.Pooling(32), models.Dense(32, 48), models.Dense(48, 32))
    encoder = Encoder.load(folder)
    exported = Export()(encoder, bench_of(encoder, tmp_path / "export", texts=None))
    made = Quantize(min_cosine=0.5)(exported, bench_of(encoder, tmp_path / "quantize", texts=None))
    assert made.card.file == QUANTIZED
    num_inner = 6 * encoder.shape.num_layers
    assert made.card.details["accounting"]["matmuls"]["int8-dynamic"] == num_inner + 2
    plain = next(m for m in measure(encoder, folder).measurements if m.metric == "parameters").value
    assert plain == num_parameters(read_facts(folder)) == sum(p.numel() for p in encoder.model.parameters()) + 3152
    cosines = np.sum(ours(made) * ours(encoder), axis=1) / np.prod(
        [np.linalg.norm(ours(one), axis=1) for one in (made, encoder)], axis=0
    )
    assert cosines.min() > 0.99


@pytest.mark.slow
def test_size_is_estimated_with_layers(tmp_path):
    folder = sentence_model(tmp_path / "m", models.Pooling(32), models.Dense(32, 512, use_residual=True))
    encoder = Encoder.load(folder)
    made = Export()(encoder, bench_of(encoder, tmp_path / "export", texts=None))
    from bertshrink.model.sizes.size_estimate import of_encoder

    told = Export().sizes(of_encoder(read_facts(folder)))
    assert told.num_bytes == pytest.approx(made.file.stat().st_size, rel=0.05)
    stored = next(m for m in measure(encoder, folder).measurements if m.metric == "size").value
    assert of_encoder(read_facts(folder)).num_bytes == pytest.approx(stored, rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("technique", [Factorize(rank=8), Share(groups=2, steps=1)])
def test_layers_go_along_into_another_class(technique, tmp_path):
    folder = chain_folder(tmp_path / "m", "a dense layer with tanh")
    encoder = Encoder.load(folder)
    made = technique(encoder.copy(), bench_of(encoder, tmp_path / "work"))
    (tmp_path / "out").mkdir()
    made.save(tmp_path / "out")
    assert np.allclose(theirs(tmp_path / "out"), ours(made), atol=1e-5)
    assert ours(made).shape == (len(TEXTS), 16)


@pytest.mark.training
@pytest.mark.parametrize("cached", [False, True])
def test_a_student_is_taught_the_vectors_behind_the_layers(cached, tmp_path):
    folder = chain_folder(tmp_path / "m", "all of them, cut")
    teacher = Encoder.load(folder)
    before = {name: value.clone() for name, value in teacher.layers.state_dict().items()}
    bench = bench_of(teacher, tmp_path / "work")
    bench.cache = tmp_path / "cache"
    student = Distill(layers=2, epochs=2, learning_rate=1e-3, teacher_cache=cached)(teacher.copy(), bench)
    (tmp_path / "out").mkdir()
    student.save(tmp_path / "out")
    assert np.allclose(theirs(tmp_path / "out"), ours(student), atol=1e-5)
    moved = [name for name, value in student.layers.state_dict().items() if not torch.equal(value, before[name])]
    assert moved, "the layers learn with the student"
    assert all(torch.equal(value, before[name]) for name, value in teacher.layers.state_dict().items())


@pytest.mark.training
def test_fine_tuning_trains_the_layers(tmp_path):
    encoder = Encoder.load(chain_folder(tmp_path / "m", "a dense layer with tanh"))
    before = encoder.layers[0].linear.weight.detach().clone()
    bench = bench_of(encoder, tmp_path / "work", texts=TextDataset("pairs", tiny_pairs(16, 1), tiny_pairs(8, 2)))
    made = Finetune(epochs=3, learning_rate=1e-3)(encoder, bench)
    assert not torch.equal(before, made.layers[0].linear.weight)


@pytest.mark.slow
@pytest.mark.training
def test_fake_quantization_rounds_the_layers(tmp_path):
    encoder = Encoder.load(chain_folder(tmp_path / "m", "a dense layer with tanh"))
    bench = bench_of(encoder, tmp_path / "work")
    made = Distill(layers=4, epochs=1, fake_quant="int4")(encoder.copy(), bench)
    rows = made.layers[0].linear.weight.detach().reshape(-1, 32)
    assert max(len(set(row.tolist())) for row in rows) <= 16, "no more values in a block than 4 bits have"


def test_the_worker_runs_the_layers(tmp_path):
    from bertshrink.engines import torch_engine

    folder = chain_folder(tmp_path / "m", "all of them, cut")
    encoder = Encoder.load(folder)
    launch = launch_of(encoder, folder)
    session = torch_engine.load(str(launch.path), options=json.loads(json.dumps(launch.options)))
    rows = encoder.tokenize(TEXTS[:1])
    feeds = {name: np.asarray([values]) for name, values in rows[0].items()}
    assert np.allclose(session.run(feeds)["sentence_embedding"], theirs(folder, TEXTS[:1]), atol=1e-5)


# Refused


def test_a_pickle_in_a_modules_folder(tmp_path):
    folder = chain_folder(tmp_path / "m", "a dense layer with tanh")
    dense = folder / "2_Dense"
    dense.joinpath("model.safetensors").rename(dense / "pytorch_model.bin")
    with pytest.raises(UnsafeModel, match="`2_Dense` are a pickle") as caught:
        Encoder.load(folder)
    assert caught.value.where.endswith("pytorch_model.bin") and caught.value.hint
    dense.joinpath("pytorch_model.bin").unlink()
    with pytest.raises(UserError, match="`2_Dense` has no weights"):
        Encoder.load(folder)


def test_a_pickle_beside_safetensors_is_not_carried_on(tmp_path):
    folder = chain_folder(tmp_path / "m", "a dense layer with tanh")
    (folder / "2_Dense" / "pytorch_model.bin").write_bytes(b"x")
    (tmp_path / "out").mkdir()
    Encoder.load(folder).save(tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out" / "2_Dense").iterdir()) == [
        "config.json",
        "model.safetensors",
    ]


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"activation_function": "my_code.Tanh"}, "`my_code.Tanh`"),
        ({"activation_function": "torch.nn.modules.activation.Softmax"}, "Softmax`"),
        ({"activation_function": "torch.nn.modules.rnn.Tanh"}, "rnn.Tanh`"),
        ({"module_input_name": "token_embeddings"}, "works on `token_embeddings`"),
        ({"module_output_name": "scores"}, "works on `scores`"),
        ({"use_gate": True}, "`use_gate`"),
        ({"out_features": None}, "`out_features`"),
        ({"in_features": 31}, "takes vectors of 31 numbers, and gets 32"),
        ({"out_features": 17}, "not what its config.json says"),
        ({"bias": False}, "not what its config.json says"),
    ],
)
def test_dense_layers_that_are_not_what_they_seem(values, word, tmp_path):
    folder = chain_folder(tmp_path / "m", "a dense layer with tanh")
    edit(folder / "2_Dense" / "config.json", **values)
    with pytest.raises((UserError, UnsafeModel)) as caught:
        Encoder.load(folder)
    assert word in caught.value.what and caught.value.where and caught.value.hint


def test_a_dense_that_names_no_activation_has_that_of_sentence_transformers(tmp_path):
    folder = chain_folder(tmp_path / "m", "a dense layer with tanh")
    path = folder / "2_Dense" / "config.json"
    path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != "activation_function"}))
    assert np.allclose(ours(Encoder.load(folder)), theirs(folder), atol=1e-5)


@pytest.mark.parametrize(
    ("file", "values", "word"),
    [
        ("1_Pooling/config.json", {"pooling_mode": "median"}, "`median`"),
        ("1_Pooling/config.json", {"pooling_mode": []}, "`none`"),
        ("1_Pooling/config.json", {"pooling_mode_attention": True}, "`pooling_mode_attention`"),
        ("2_LayerNorm/config.json", {"eps": 1e-3}, "`eps`"),
        ("2_LayerNorm/config.json", {"dimension": 16}, "takes vectors of 16"),
    ],
)
def test_poolings_and_norms_that_are_not_known(file, values, word, tmp_path):
    folder = chain_folder(tmp_path / "m", "a norm")
    edit(folder / file, **values)
    with pytest.raises((UserError, UnsafeModel)) as caught:
        read_facts(folder)
    assert word in caught.value.what and caught.value.where and caught.value.hint


@pytest.mark.parametrize(
    "kind",
    [
        *("Router", "Asym", "CLIPModel", "WordEmbeddings", "BoW", "CNN", "LSTM", "StaticEmbedding", "WordWeights"),
        *("WeightedLayerPooling", "LogitScore", "SpladePooling", "SparseAutoEncoder", "SparseStaticEmbedding"),
    ],
)
def test_modules_that_are_refused_by_name(kind, tmp_path):
    folder = sentence_model(tmp_path / "m")
    listed = json.loads((folder / "modules.json").read_text())
    listed.append({"idx": 2, "name": "2", "path": f"2_{kind}", "type": f"sentence_transformers.models.{kind}"})
    (folder / "modules.json").write_text(json.dumps(listed))
    with pytest.raises(UserError, match=f"module `{kind}` is not supported"):
        read_facts(folder)


def test_code_of_the_models_own_is_refused(tmp_path):
    folder = sentence_model(tmp_path / "m")
    listed = json.loads((folder / "modules.json").read_text())
    listed[1]["type"] = "custom_st.Pooling"
    (folder / "modules.json").write_text(json.dumps(listed))
    with pytest.raises(UnsafeModel, match=r"`custom_st\.Pooling`"):
        read_facts(folder)


def test_what_a_pickled_layer_would_say_is_what_the_library_gives(tmp_path):
    """The hint for pickles works: saved again, the weights are safetensors."""
    folder = chain_folder(tmp_path / "m", "a dense layer with tanh")
    wanted = theirs(folder)
    model = SentenceTransformer(str(folder), device="cpu")
    model.save(str(tmp_path / "again"))
    assert np.allclose(ours(Encoder.load(tmp_path / "again")), wanted, atol=1e-5)


def test_inspect_counts_the_layers(tmp_path, capsys):
    folder = chain_folder(tmp_path / "m", "all of them, cut")
    encoder = Encoder.load(folder)
    assert run(["inspect", str(folder), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    found = {m.metric: m.value for m in measure(encoder, folder).measurements}
    assert (told["num_parameters"], told["num_bytes"]) == (found["parameters"], found["size"])
    (folder / "2_Dense" / "model.safetensors").rename(folder / "2_Dense" / "pytorch_model.bin")
    assert run(["inspect", str(folder)]) == 5


def test_a_file_says_what_its_vectors_are_made_by(tmp_path):
    encoder = Encoder.load(chain_folder(tmp_path / "m", "all of them, cut"))
    said = json.loads(dict(metadata(encoder))["pooling"])
    assert (said["mode"], said["normalize"], len(said["layers"])) == (["max", "mean"], True, 4)
