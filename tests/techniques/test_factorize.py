"""`factorize` as a technique: ranks, energy and sizes, what it promises and what it makes, bad input."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from bertshrink.cli.app import run
from bertshrink.data.texts import Split
from bertshrink.errors import CheckFailed, UnsafeModel, UserError
from bertshrink.model.batches import tensors
from bertshrink.model.checkpoint_info import read_facts
from bertshrink.model.encoder import Encoder
from bertshrink.model.sizes.parameter_count import facts_of, num_parameters
from bertshrink.model.sizes.size_estimate import of_encoder
from bertshrink.model.tasks import TASKS
from bertshrink.techniques.factorize import Factorize
from tests.support.families import NARROWED
from tests.support.pairwise import matrix
from tests.support.tiny import bench_of, outputs, sentences, tiny_encoder, tiny_texts

SHRINKABLE = list(TASKS)


@pytest.mark.slow
@matrix(("family", "task"), NARROWED, SHRINKABLE, strength=1)
def test_the_plan_knows_what_comes_out(family, task, tmp_path):
    encoder = tiny_encoder(family, task)
    encoder.save(tmp_path / "m")
    facts = read_facts(tmp_path / "m", task)
    settings = Factorize(rank=8)
    promised = settings.fit(facts)
    found = settings(encoder.copy(), bench_of(encoder, tmp_path))
    found.save(tmp_path / "out")
    made = read_facts(tmp_path / "out", task)
    assert (made.anatomy.family, made.shape) == (promised.anatomy.family, promised.shape)
    assert (made.labels, made.task, made.max_length) == (facts.labels, task, facts.max_length)
    number = sum(p.numel() for p in found.model.parameters())
    assert number == num_parameters(promised)


@pytest.mark.slow
@pytest.mark.parametrize("family", NARROWED)
def test_full_rank_changes_nothing_and_a_lower_one_loses_more(family, tmp_path):
    encoder = tiny_encoder(family, "token-classification")
    rows = encoder.tokenize(sentences(10, seed=2))
    width = encoder.model.get_input_embeddings().weight.shape[1]
    errors = []
    for rank in (width, width // 2, 2):
        found = Factorize(rank=rank)(encoder.copy(), bench_of(encoder, tmp_path))
        errors.append(np.abs(outputs(found, rows) - outputs(encoder, rows)).mean())
    assert errors[0] < 1e-5 < errors[1] < errors[2]


@pytest.mark.slow
@pytest.mark.parametrize("family", NARROWED)
def test_a_masked_language_model_of_full_rank_keeps_its_tied_head(family, tmp_path):
    encoder = tiny_encoder(family, "mlm")
    width = encoder.model.get_input_embeddings().weight.shape[1]
    found = Factorize(rank=width)(encoder.copy(), bench_of(encoder, tmp_path))
    found.save(tmp_path / "out")
    again = Encoder.load(tmp_path / "out", "mlm")
    assert again.model.get_output_embeddings().weight is again.model.get_input_embeddings().weight
    rows = encoder.tokenize(sentences(10, seed=2))
    assert np.abs(outputs(again, rows) - outputs(encoder, rows)).max() < 1e-5


@pytest.mark.parametrize(("task", "sizes"), [("classification", {}), ("mlm", {"type_vocab_size": 2})])
def test_a_projection_before_the_norm_is_fitted_with_every_table_that_there_is(task, sizes, tmp_path):
    """Of a DeBERTa as wide as its layers, and of one with positions, token types and a convolution besides."""
    more = {"position_biased_input": True, "share_att_key": False, "conv_kernel_size": 3} if sizes else {}
    encoder = tiny_encoder("deberta-v2", task, embedding_size=32, **sizes, **more)
    rows, wanted = encoder.tokenize(sentences(10, seed=2)), []
    for rank in (31, 12):
        technique = Factorize(rank=rank)
        found = technique(encoder.copy(), bench_of(encoder, tmp_path))
        assert sum(p.numel() for p in found.model.parameters()) == num_parameters(technique.fit(facts_of(encoder)))
        assert set(found.model.config.to_dict()) - {"embedding_size"} == set(encoder.model.config.to_dict()) - {
            "embedding_size"
        }
        states = [one.model.base_model(**tensors(rows[:1])).last_hidden_state for one in (found, encoder)]
        wanted.append((states[0] - states[1]).abs().mean().item())
    assert wanted[0] < 1e-5 < wanted[1], "31 directions are all that LayerNorm leaves of 32"


def test_a_family_that_stays_itself_is_copied_where_full_width_has_no_projection(tmp_path):
    encoder = tiny_encoder("electra", embedding_size=32)
    rows = encoder.tokenize(sentences(10, seed=2))
    found = Factorize(rank=32)(encoder.copy(), bench_of(encoder, tmp_path))
    assert np.abs(outputs(found, rows) - outputs(encoder, rows)).max() < 1e-6


def test_sensitive_directions_and_strong_ones_are_different_and_both_near(tmp_path):
    encoder = tiny_encoder()
    rows = encoder.tokenize(sentences(40, seed=2))
    one, other = (
        outputs(Factorize(rank=20, subspace=name)(encoder.copy(), bench_of(encoder, tmp_path)), rows)
        for name in ("sensitive", "principal")
    )
    assert not np.allclose(one, other)
    scale = np.abs(outputs(encoder, rows)).mean()
    assert all(np.abs(found - outputs(encoder, rows)).mean() < 0.2 * scale for found in (one, other))


def test_the_same_twice_is_the_same(tmp_path):
    encoder = tiny_encoder()
    first, second = (Factorize(rank=8)(encoder.copy(), bench_of(encoder, tmp_path)) for _ in range(2))
    for mine, theirs in zip(first.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_energy_is_the_least_rank_that_keeps_it(tmp_path):
    encoder = tiny_encoder()
    bench = bench_of(encoder, tmp_path)
    found = Factorize(explained_variance="90%")(encoder.copy(), bench)
    kept = float(re.search(r"retains ([\d.]+)% of the embedding variance", " ".join(bench.notes))[1])
    below = bench_of(encoder, tmp_path)
    Factorize(rank=found.shape.embedding_size - 1)(encoder.copy(), below)
    assert kept >= 90 > float(re.search(r"retains ([\d.]+)% of the embedding variance", " ".join(below.notes))[1])
    assert Factorize(explained_variance="100%")(encoder.copy(), bench).shape.embedding_size <= encoder.shape.hidden_size


def test_a_size_is_kept_and_used_up(tmp_path):
    encoder = tiny_encoder()
    encoder.save(tmp_path / "m")
    facts = read_facts(tmp_path / "m")
    most = of_encoder(Factorize(rank=11).fit(facts)).num_bytes + 3
    settings = Factorize(max_size=f"{most} B")
    assert settings.fit(facts).shape.embedding_size == 11
    found = settings(encoder.copy(), bench_of(encoder, tmp_path))
    found.save(tmp_path / "found")
    assert 0.99 * most < (tmp_path / "found" / "model.safetensors").stat().st_size <= most
    assert Factorize(max_size="1 GB").fit(facts).shape.embedding_size == encoder.shape.hidden_size
    with pytest.raises(UserError, match="`max_size` is 1 kB; with tables of width 1"):
        Factorize(max_size="1 kB").fit(facts)


def test_texts_say_which_tokens_matter(tmp_path):
    encoder = tiny_encoder("bert", "embedding")
    text = "the movie film"
    one = replace(tiny_texts("embedding"), train=Split((text,) * 50))
    rows = encoder.tokenize([text])
    errors = [
        np.abs(outputs(Factorize(rank=8)(encoder.copy(), bench_of(encoder, tmp_path, texts)), rows) - wanted).mean()
        for wanted in [outputs(encoder, rows)]
        for texts in (one, None)
    ]
    assert errors[0] < 0.5 * errors[1]


def test_no_texts_means_zipfs_law_and_is_said(tmp_path):
    bench = bench_of(tiny_encoder(), tmp_path, None)
    Factorize(rank=8)(tiny_encoder(), bench)
    assert any("no calibration texts" in note and "Zipf" in note for note in bench.notes)
    assert any("saves memory, not time" in note for note in bench.notes)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"rank": 8, "explained_variance": "90%"}, "`rank` and `explained_variance` both decide the width"),
        ({"rank": 0}, "greater than or equal to 1"),
        ({"rank": -3}, "greater than or equal to 1"),
        ({"explained_variance": "0%"}, "is not a fraction above 0"),
        ({"explained_variance": "120%"}, "is not a share"),
        ({"explained_variance": "5 MB"}, "is not a share"),
        ({"max_size": "5 ms"}, "is not a size"),
        ({"max_size": "-5 MB"}, "is not a size"),
    ],
)
def test_settings_that_mean_nothing_are_refused(given, says):
    with pytest.raises(ValidationError, match=re.escape(says)):
        Factorize(**given)


def test_no_setting_means_albert_s_own_width(tmp_path):
    assert Factorize().label() == "factorize to rank 128"
    tiny_encoder().save(tmp_path)
    with pytest.raises(UserError, match="`rank` is 128; the model's embedding tables are 32 wide"):
        Factorize().fit(read_facts(tmp_path))


def test_a_rank_above_the_tables_width_is_refused(tmp_path):
    tiny_encoder("electra").save(tmp_path)
    with pytest.raises(UserError, match=r"`rank` is 17; the model's embedding tables are 16 wide"):
        Factorize(rank=17).fit(read_facts(tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("family", NARROWED)
def test_a_masked_language_model_of_lower_rank_gets_a_head_that_is_fitted_and_stays_tied(family, tmp_path):
    encoder = tiny_encoder(family, "mlm")
    bench = bench_of(encoder, tmp_path)
    bench.texts = replace(bench.texts, train=Split(tuple(sentences(600))))
    rank = encoder.shape.embedding_size - 2
    found = Factorize(rank=rank)(encoder.copy(), bench)
    assert found.shape.embedding_size == rank
    assert found.model.get_output_embeddings().weight is found.model.get_input_embeddings().weight
    said = next(note for note in bench.notes if note.startswith("approximate"))
    # By chance one guess in 170 would be the same.
    assert float(re.search(r"([\d.]+)% of \d+ masked tokens held out", said)[1]) > 40


def test_texts_without_a_known_token_are_refused(tmp_path):
    encoder = tiny_encoder()
    texts = replace(tiny_texts("classification"), train=Split(("\u6771\u4eac",) * 8))
    with pytest.raises(UserError, match="contain only special tokens after tokenization"):
        Factorize(rank=8)(encoder, bench_of(encoder, tmp_path, texts))


def test_a_tokenizer_that_would_read_other_ids_is_found_out(tmp_path, monkeypatch):
    encoder = tiny_encoder()
    load = Encoder.load.__func__

    def other(cls, folder, *given):
        found = load(cls, folder, *given)
        found.tokenizer.add_tokens(["tokenizer"])
        return found

    monkeypatch.setattr(Encoder, "load", classmethod(other))
    with pytest.raises(CheckFailed, match="the tokenizer produces different token ids"):
        Factorize(rank=8)(encoder, bench_of(encoder, tmp_path))


@pytest.mark.slow
def test_the_command_from_end_to_end(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    encoder = tiny_encoder()
    encoder.save(tmp_path / "m")
    words = ["factorize", "m", "--no-latency", "-q"]
    assert run([*words, "--rank", "8", "-o", "out"]) == 0, capsys.readouterr().err
    assert Encoder.load(tmp_path / "out").shape.embedding_size == 8
    assert run([*words, "--rank", "33", "-o", "wide"]) == 2
    assert "--rank" in capsys.readouterr().err and not (tmp_path / "wide").exists()
    with torch.no_grad():
        encoder.model.get_input_embeddings().weight[3, 3] = float("nan")
    encoder.save(tmp_path / "nan")
    with pytest.raises(UnsafeModel, match="not finite"):
        Encoder.load(tmp_path / "nan")
