"""What sentence-transformers writes beside a model is read as it reads it: equal vectors and scores, or refused."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers
from scipy.stats import spearmanr

pytest.importorskip("sentence_transformers")
from sentence_transformers import CrossEncoder, SentenceTransformer
from sentence_transformers.sentence_transformer import modules as models

from bertshrink.cli.app import run
from bertshrink.data.texts import Split, TextDataset
from bertshrink.errors import UnsafeModel, UserError
from bertshrink.meters.quality.evaluators import prepare
from bertshrink.model.artifact import Artifact
from bertshrink.model.checkpoint_info import read_facts
from bertshrink.model.encoder import Encoder
from bertshrink.model.folder.pooling import Pooling
from bertshrink.model.folder.side_files import write_modules
from bertshrink.model.model_ref import ModelRef
from bertshrink.techniques.distill import Distill
from bertshrink.techniques.factorize import Factorize
from bertshrink.training.losses import task_loss
from tests.support.sentence_folders import (
    PAIRS,
    TEXTS,
    cross_encoder,
    edit,
    everything_made_of,
    ours,
    sentence_model,
    theirs,
)
from tests.support.tiny import bench_of, sentences, tiny_encoder


def lower_case(folder):
    """As sentence-transformers up to version 5 saved it, over a tokenizer that keeps capitals."""
    edit(folder / "sentence_bert_config.json", do_lower_case=True)
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"normalizer": None}))


def lower_case_of_a_family(folder):
    """The same over a class that builds its own steps at every load, by what tokenizer_config.json says."""
    edit(folder / "sentence_bert_config.json", do_lower_case=True)
    edit(folder / "tokenizer_config.json", tokenizer_class="BertTokenizer", do_lower_case=False, strip_accents=False)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    assert isinstance(tokenizer, transformers.BertTokenizer)
    tokenizer.save_pretrained(folder)  # so that tokenizer.json says the same


KINDS = {
    "truncate_dim": ({"truncate_dim": 8}, lambda folder: None, "to 8 dimensions"),
    "truncate_dim of normalised vectors": ({"truncate_dim": 8}, None, "to 8 dimensions"),
    "a default prompt": (
        {"prompts": {"query": "see the ", "passage": "read "}, "default_prompt_name": "query"},
        lambda folder: None,
        "`see the ` (`query`, the default)",
    ),
    "lower-cased": ({}, lower_case, "lower-cased"),
    "small letters, a family's class": ({}, lower_case_of_a_family, "lower-cased"),
    "max_seq_length": ({}, lambda folder: edit(folder / "sentence_bert_config.json", max_seq_length=5), None),
    "nothing": ({}, lambda folder: None, None),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_every_setting_gives_the_vectors_of_sentence_transformers(kind, tmp_path):
    settings, change, told = KINDS[kind]
    modules = (models.Pooling(32), models.Normalize()) if change is None else ()
    folder = sentence_model(tmp_path / "m", *modules, **settings)
    if change is not None:
        change(folder)
    wanted = theirs(folder)
    for model in everything_made_of(folder, tmp_path):
        found = ours(model)
        assert found.shape == wanted.shape
        assert np.allclose(found, wanted, atol=1e-5), type(model)
    assert np.allclose(theirs(tmp_path / "student"), wanted, atol=1e-5), "the student's folder says the same"
    notes = " ".join(read_facts(folder).notes)
    assert told is None or told in notes


@pytest.mark.slow
def test_the_settings_matter(tmp_path):
    """What the test above compares would differ where a setting was left out."""
    plain = theirs(sentence_model(tmp_path / "plain"))
    prompted = sentence_model(tmp_path / "p", prompts={"query": "see the "}, default_prompt_name="query")
    short = sentence_model(tmp_path / "s")
    edit(short / "sentence_bert_config.json", max_seq_length=5)
    for folder in (prompted, short):
        assert not np.allclose(theirs(folder), plain, atol=1e-3)
    for name, change in (("l", lower_case), ("f", lower_case_of_a_family)):
        small = sentence_model(tmp_path / name)
        change(small)
        wanted = theirs(small)
        edit(small / "sentence_bert_config.json", do_lower_case=False)
        assert not np.allclose(theirs(small), wanted, atol=1e-3)


@pytest.mark.slow
def test_prompts_without_a_default_travel_and_are_told(tmp_path):
    folder = sentence_model(tmp_path / "m", prompts={"query": "see the ", "passage": ""})
    encoder, student, artifact = everything_made_of(folder, tmp_path)
    assert np.allclose(ours(artifact), theirs(folder), atol=1e-5)
    assert "`query`" in " ".join(read_facts(folder).notes)
    again = SentenceTransformer(str(tmp_path / "student"), device="cpu")
    assert again.prompts["query"] == "see the " and encoder.prompt == student.prompt == ""


def test_a_length_of_its_own_stands_before_the_tokenizers(tmp_path):
    folder = sentence_model(tmp_path / "m")
    edit(folder / "tokenizer_config.json", model_max_length=4)
    edit(folder / "sentence_bert_config.json", max_seq_length=9)
    encoder = Encoder.load(folder)
    assert encoder.max_length == 9
    assert np.allclose(ours(encoder), theirs(folder), atol=1e-5)
    edit(folder / "sentence_bert_config.json", max_seq_length=999)
    assert Encoder.load(folder).max_length == 64, "no more than there are positions"


@pytest.mark.parametrize(
    ("said", "length"),
    [
        ({"max_seq_length": 9, "processor_kwargs": {"model_max_length": 7}}, 7),
        ({"max_seq_length": 9, "tokenizer_args": {"model_max_length": 6}, "processor_kwargs": {}}, 6),
        ({"max_seq_length": None}, 11),
    ],
)
def test_every_way_to_say_a_length_is_read_as_sentence_transformers_reads_it(said, length, tmp_path):
    folder = sentence_model(tmp_path / "m")
    edit(folder / "tokenizer_config.json", model_max_length=11)
    edit(folder / "sentence_bert_config.json", **said)
    encoder = Encoder.load(folder)
    assert encoder.max_length == length == SentenceTransformer(str(folder), device="cpu").max_seq_length
    assert np.allclose(ours(encoder), theirs(folder), atol=1e-5)
    (tmp_path / "out").mkdir()
    replace(encoder, max_length=5).save(tmp_path / "out")
    assert SentenceTransformer(str(tmp_path / "out"), device="cpu").max_seq_length == 5


def test_the_first_settings_that_say_something_are_those_of_the_transformer(tmp_path):
    folder = sentence_model(tmp_path / "m")
    (folder / "sentence_bert_config.json").write_text("{}")
    edit(folder / "sentence_roberta_config.json", max_seq_length=6)
    edit(folder / "sentence_xlnet_config.json", max_seq_length=4)
    assert Encoder.load(folder).max_length == 6 == SentenceTransformer(str(folder), device="cpu").max_seq_length


def test_vectors_are_evaluated_at_each_number_of_dimensions(tmp_path):
    """As with that library's `truncate_dim` and `normalize_embeddings`: cut, then one long."""
    folder = sentence_model(tmp_path / "m", models.Pooling(32), models.Normalize())
    encoder, texts = Encoder.load(folder), sentences(30, seed=7)
    exam = prepare(encoder, exam_texts(texts), None, 0, dimensions=(16, 4))
    found = {m.metric: m.value for m in exam.sit(encoder)}
    assert list(found) == [*("spearman", "recall@10", "spearman@16d", "recall@10@16d", "spearman@4d", "recall@10@4d")]
    whole = theirs(folder, texts)
    library = SentenceTransformer(str(folder), device="cpu")
    for number in (16, 4):
        cut = library.encode(texts, truncate_dim=number, normalize_embeddings=True, show_progress_bar=False)
        upper = np.triu_indices(len(texts), 1)
        wanted = spearmanr((cut @ cut.T)[upper], (whole @ whole.T)[upper]).statistic
        assert found[f"spearman@{number}d"] == pytest.approx(wanted, abs=1e-3)
    assert found["spearman"] == 1 > found["spearman@16d"] > found["spearman@4d"]
    with pytest.raises(UserError, match="`dimensions` has 32"):
        prepare(encoder, exam_texts(texts), None, 0, dimensions=(32,)).sit(encoder)


def exam_texts(texts):
    return TextDataset("salad", *[Split(tuple(texts))] * 2)


@pytest.mark.training
@pytest.mark.parametrize("family", ["bert", "distilbert", "roberta"])
def test_a_training_of_cut_vectors_learns_cut_vectors(family, tmp_path):
    encoder = Encoder.load(sentence_model(tmp_path / "m", family=family, truncate_dim=8))
    student = Distill(layers=2, epochs=1)(encoder, bench_of(encoder, tmp_path / "work"))
    assert ours(student).shape == (len(TEXTS), 8)


# Refused


@pytest.mark.parametrize(
    ("modules", "word"),
    [
        (lambda: [models.Normalize(), models.Pooling(32)], "in this order"),
        (lambda: [models.WordWeights(["a"], {"a": 2.0}), models.Pooling(32)], "`WordWeights`"),
    ],
)
def test_modules_that_no_stock_checkpoint_holds(modules, word, tmp_path):
    folder = sentence_model(tmp_path / "m", *modules())
    with pytest.raises(UserError, match="not supported") as caught:
        read_facts(folder)
    assert word in caught.value.what and caught.value.where and caught.value.hint


@pytest.mark.slow
@pytest.mark.parametrize("harmless", [lambda: models.Pooling(32, pooling_mode=["mean"]), lambda: models.Pooling(32)])
def test_modules_that_change_nothing(harmless, tmp_path):
    folder = sentence_model(tmp_path / "m", harmless(), models.Dropout(0.1))
    for model in everything_made_of(folder, tmp_path):
        assert np.allclose(ours(model), theirs(folder), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "values", "word"),
    [
        ("sentence_bert_config.json", {"tokenizer_args": {"do_lower_case": True}}, "`tokenizer_args: do_lower_case`"),
        ("sentence_bert_config.json", {"config_kwargs": {"hidden_act": "relu"}}, "`config_kwargs: hidden_act`"),
        ("sentence_bert_config.json", {"query_length": 8}, "`query_length`"),
        ("sentence_bert_config.json", {"processing_kwargs": {"text": {"max_length": 3}}}, "`processing_kwargs`"),
        (
            "sentence_bert_config.json",
            {"modality_config": {"text": {"method": "forward", "method_output_name": "pooler_output"}}},
            "pooler_output",
        ),
        (
            "sentence_bert_config.json",
            {
                "modality_config": {
                    name: {"method": "forward", "method_output_name": "last_hidden_state"}
                    for name in ("text", "message")
                }
            },
            "`message`",
        ),
        ("sentence_bert_config.json", {"transformer_task": "fill-mask"}, "`fill-mask`"),
        ("sentence_bert_config.json", {"document_length": 8}, "`document_length`"),
        ("sentence_bert_config.json", {"query_expansion": {"strategy": "min", "length": 8}}, "`query_expansion`"),
        ("config_sentence_transformers.json", {"truncate_dim": 0}, "`truncate_dim` is `0`"),
        ("config_sentence_transformers.json", {"similarity_fn_name": "hamming"}, "`similarity_fn_name` is `hamming`"),
        ("config_sentence_transformers.json", {"default_prompt_name": "q", "prompts": {}}, "default prompt `q`"),
        ("config_sentence_transformers.json", {"model_type": "SparseEncoder"}, "of `logits` is supported"),
        ("config_sentence_transformers.json", {"model_type": "MultiVectorEncoder"}, "`MultiVectorEncoder`"),
        ("2_Normalize/config.json", {"module_input_name": "token_embeddings"}, "works on `token_embeddings`"),
    ],
)
def test_settings_that_would_change_the_vectors(file, values, word, tmp_path):
    folder = sentence_model(tmp_path / "m", models.Pooling(32), models.Normalize())
    edit(folder / file, **values)
    with pytest.raises((UserError, UnsafeModel)) as caught:
        read_facts(folder)
    assert word in caught.value.what and caught.value.where and caught.value.hint


@pytest.mark.slow
def test_a_pooling_that_leaves_the_default_prompt_out(tmp_path):
    """As of INSTRUCTOR models: the prompt is read, and no vector is made of its tokens."""
    modes = models.Pooling.POOLING_MODES
    settings = {"prompts": {"q": "see the ", "other": "see two", "none": ""}, "default_prompt_name": "q"}
    folder = sentence_model(tmp_path / "m", models.Pooling(32, modes, include_prompt=False), **settings)
    wanted = theirs(folder)
    for model in everything_made_of(folder, tmp_path):
        assert np.allclose(ours(model), wanted, atol=1e-5), type(model)
    assert np.allclose(theirs(tmp_path / "student"), wanted, atol=1e-5)
    assert ModelRef.read(tmp_path / "exported").about.pooling == (modes, False, None, 3), "[CLS] see the"
    edit(folder / "1_Pooling" / "config.json", include_prompt=True)
    assert not np.allclose(theirs(folder), wanted, atol=1e-2)


@pytest.mark.parametrize(
    ("prompts", "default", "skip"),
    [
        ({}, None, 0),
        ({"query": "see "}, None, 0),
        ({"query": "see ", "none": ""}, "none", 0),
        ({"query": "see ", "passage": "read this "}, "query", 2),
    ],
)
def test_a_pooling_that_leaves_prompts_out(prompts, default, skip, tmp_path):
    """Only the default prompt is ever read, so only its tokens are left out; of the others a note tells."""
    pooling = models.Pooling(32, include_prompt=False)
    folder = sentence_model(tmp_path / "m", pooling, prompts=prompts, default_prompt_name=default)
    encoder = Encoder.load(folder)
    assert encoder.pooling.skip == skip
    assert np.allclose(ours(encoder), theirs(folder), atol=1e-5)
    told = [note for note in read_facts(folder).notes if "`include_prompt: false`" in note]
    assert len(told) == bool(prompts)
    if prompts:
        assert ("leaves out those of the default prompt" if skip else "leaves out no tokens") in told[0]


@pytest.mark.slow
@pytest.mark.parametrize("named", ["dot", "euclidean", "manhattan", "maxsim"])
def test_how_vectors_are_compared(named, tmp_path):
    """Kept by all that is made of the model; what is for vectors of tokens is the usual one, as in that library."""
    folder = sentence_model(tmp_path / "m")
    edit(folder / "config_sentence_transformers.json", similarity_fn_name=named)
    meant = None if named == "maxsim" else named
    assert SentenceTransformer(str(folder), device="cpu").similarity_fn_name == (meant or "cosine")
    facts = read_facts(folder)
    assert any("`similarity_fn_name`" in note for note in facts.notes) == (meant is not None)
    if named != "dot":
        assert facts.sentence.similarity == meant
        return
    for model in everything_made_of(folder, tmp_path):
        assert model.similarity == "dot", type(model)
    assert SentenceTransformer(str(tmp_path / "student"), device="cpu").similarity_fn_name == "dot"
    exported = tmp_path / "exported"
    about = ModelRef.read(exported).about
    for name in ("config_sentence_transformers.json", "modules.json"):
        assert name == "modules.json" or json.loads((exported / name).read_text())["similarity_fn_name"] == "dot"
        (exported / name).unlink()
    write_modules(exported, Pooling(*about.pooling), 32, 64, similarity=about.similarity)
    assert json.loads((exported / "config_sentence_transformers.json").read_text())["similarity_fn_name"] == "dot"


def test_the_old_layout_is_named(tmp_path):
    folder = sentence_model(tmp_path / "m")
    (folder / "0_Transformer").mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
        (folder / name).rename(folder / "0_Transformer" / name)
    listed = json.loads((folder / "modules.json").read_text())
    listed[0]["path"] = "0_Transformer"
    (folder / "modules.json").write_text(json.dumps(listed))
    for content in (None, '{"__version__": "0.2.0"}'):
        if content is not None:
            (folder / "config.json").write_text(content)
        with pytest.raises(UserError, match=r"is in `0_Transformer/`") as caught:
            read_facts(folder)
        assert "SentenceTransformer(DIR).save(NEW)" in caught.value.hint


# Cross-encoders


def scores_of(model, pairs=PAIRS):
    rows = model.tokenize([first for first, _ in pairs], [second for _, second in pairs])
    return np.stack([row["logits"] for row in model.predict(rows)])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("activation", "expected"),
    [(None, "sigmoid"), (torch.nn.Sigmoid(), "sigmoid"), (torch.nn.Identity(), "identity")],
)
def test_a_cross_encoder_of_one_score(activation, expected, tmp_path):
    folder = cross_encoder(tmp_path / "m", activation_fn=activation, max_length=12)
    facts = read_facts(folder)
    assert (facts.task, facts.activation, facts.max_length, facts.pooling) == ("regression", expected, 12, None)
    assert ("sigmoid" in " ".join(facts.notes)) is (expected == "sigmoid")
    wanted = CrossEncoder(str(folder), device="cpu").predict(PAIRS)
    raw = CrossEncoder(str(folder), device="cpu").predict(PAIRS, activation_fn=torch.nn.Identity())
    for model in everything_made_of(folder, tmp_path):
        assert np.allclose(scores_of(model)[:, 0], raw, atol=1e-5), "logits, as the class gives them"
        assert model.activation == expected
    again = CrossEncoder(str(tmp_path / "student"), device="cpu")
    assert np.allclose(again.predict(PAIRS), wanted, atol=1e-5), "the student's folder says how a score is made"
    assert type(again.activation_fn).__name__.lower() == expected


@pytest.mark.slow
def test_a_cross_encoder_of_three_labels(tmp_path):
    folder = cross_encoder(tmp_path / "m", num_labels=3)
    assert (read_facts(folder).task, len(read_facts(folder).labels)) == ("classification", 3)
    wanted = CrossEncoder(str(folder), device="cpu").predict(PAIRS)
    for model in everything_made_of(folder, tmp_path):
        assert np.allclose(scores_of(model), wanted, atol=1e-5)


@pytest.mark.slow
def test_a_cross_encoders_default_prompt(tmp_path):
    folder = cross_encoder(tmp_path / "m", prompts={"query": "see the "}, default_prompt_name="query")
    wanted = CrossEncoder(str(folder), device="cpu").predict(PAIRS, activation_fn=torch.nn.Identity())
    for model in everything_made_of(folder, tmp_path):
        assert np.allclose(scores_of(model)[:, 0], wanted, atol=1e-5)


def test_activations_in_config_json(tmp_path):
    folder = tmp_path / "m"
    folder.mkdir()
    tiny_encoder("bert", "regression").save(folder)
    assert read_facts(folder).activation == "identity", "a score of transformers' own"
    edit(folder / "config.json", sentence_transformers={"activation_fn": "torch.nn.modules.activation.Sigmoid"})
    assert read_facts(folder).activation == "sigmoid"
    edit(folder / "config.json", sentence_transformers=None, sbert_ce_default_activation_function="torch.nn.Identity")
    assert read_facts(folder).activation == "identity"
    edit(folder / "config.json", sbert_ce_default_activation_function="torch.nn.modules.activation.Tanh")
    with pytest.raises(UserError, match="Tanh` behind the model's logits is not supported"):
        read_facts(folder)


def test_a_cross_encoder_without_its_head_or_with_more_behind_it(tmp_path):
    folder = cross_encoder(tmp_path / "m")
    edit(folder / "config.json", architectures=["BertModel"])
    with pytest.raises(UserError, match="has no head for scores"):
        read_facts(folder)
    edit(folder / "config.json", architectures=["BertForSequenceClassification"])
    modules = json.loads((folder / "modules.json").read_text())
    modules.append({"idx": 1, "name": "1", "path": "1_Dense", "type": "sentence_transformers.base.modules.dense.Dense"})
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(UserError, match="module `Dense` is not supported"):
        read_facts(folder)


def test_a_score_is_learnt_as_the_sigmoid_of_its_logit():
    logits, labels = {"logits": torch.tensor([[0.0], [2.0]])}, torch.tensor([0.5, 1.0])
    assert task_loss("regression", logits, labels, "sigmoid").item() == pytest.approx(
        ((torch.sigmoid(torch.tensor(2.0)) - 1) ** 2 / 2).item()
    )
    assert task_loss("regression", logits, labels).item() == pytest.approx((0.25 + 1) / 2)


def test_labels_with_an_activation_of_their_own(tmp_path):
    folder = cross_encoder(tmp_path / "m", num_labels=3, activation_fn=torch.nn.Sigmoid())
    facts = read_facts(folder)
    assert (facts.task, facts.activation) == ("classification", "sigmoid")
    assert "sigmoid" in " ".join(facts.notes)
    raw = scores_of(Encoder.load(folder))
    assert np.allclose(1 / (1 + np.exp(-raw)), CrossEncoder(str(folder), device="cpu").predict(PAIRS), atol=1e-5)
    edit(folder / "config_sentence_transformers.json", activation_fn="torch.nn.modules.activation.Softmax")
    with pytest.raises(UserError, match="Softmax` behind"):
        read_facts(folder)


@pytest.mark.parametrize("key", ["sentence_transformers", "sbert_ce_default_activation_function"])
@pytest.mark.parametrize("named", ["torch.nn.modules.linear.Identity", "torch.nn.modules.activation.Sigmoid"])
def test_a_model_of_another_class_still_says_what_makes_a_score(key, named, tmp_path):
    """CrossEncoder takes a sigmoid where config.json does not say otherwise."""
    folder = tmp_path / "m"
    folder.mkdir()
    tiny_encoder("bert", "regression").save(folder)
    edit(folder / "config.json", **{key: {"activation_fn": named} if key == "sentence_transformers" else named})
    encoder = Encoder.load(folder)
    made = Factorize(rank=8)(encoder, bench_of(encoder, tmp_path / "work"))
    (tmp_path / "out").mkdir()
    made.save(tmp_path / "out")
    assert read_facts(tmp_path / "out").activation == encoder.activation
    theirs = CrossEncoder(str(tmp_path / "out"), device="cpu")
    assert type(theirs.activation_fn).__name__.lower() == encoder.activation


def test_scores_are_compared_behind_their_activation(tmp_path):
    """Two logits of 8 and 12 are one score, and 0 and 1 are two: what the library gives is what counts."""
    folder = cross_encoder(tmp_path / "m")
    encoder = Encoder.load(folder)
    exam = prepare(encoder, TextDataset("pairs", *[Split(tuple(TEXTS), tuple(reversed(TEXTS)))] * 2), None, 0)
    exam.sit(encoder)
    changed = encoder.copy()
    with torch.no_grad():
        changed.model.classifier.bias += 0.7
    found = {m.metric: m.value for m in exam.sit(changed)}
    (tmp_path / "changed").mkdir()
    changed.save(tmp_path / "changed")
    mine, before = (CrossEncoder(str(place), device="cpu").predict(PAIRS) for place in (tmp_path / "changed", folder))
    assert found["score_difference"] == pytest.approx(float(np.abs(mine - before).mean()), abs=1e-5)
    assert found["agreement"] == pytest.approx(1.0)


@pytest.mark.subprocess
def test_a_cross_encoder_through_the_commands(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    cross_encoder(tmp_path / "m")
    assert run(["export", "m", "--no-latency", "-q", "-o", "out"]) == 0
    assert "sigmoid" in capsys.readouterr().out
    card = Artifact.load(tmp_path / "out").card
    assert (card.task, card.outputs, card.activation) == ("regression", ("logits",), "sigmoid")
