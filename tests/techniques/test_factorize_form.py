"""The closed form: against a slow textbook projection, and without loss at full rank for every family and task."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers

from bertshrink.data.calibration import uniform_rows, zipf_rows
from bertshrink.errors import UserError
from bertshrink.model.conversion import EmbeddingWeights, assemble, decompose, steep
from bertshrink.model.encoder import Encoder
from bertshrink.model.sizes.parameter_count import target_family
from bertshrink.model.tasks import TASKS
from bertshrink.techniques.factorize import subspace
from bertshrink.techniques.factorize.low_rank import factorized, principal_basis, sum_free_basis
from tests.support.families import NARROWED
from tests.support.tiny import sentences, tiny_encoder


def embedding(width=12, vocabulary=40, eps=1e-5, hidden=None, seed=0):
    torch.manual_seed(seed)
    projection = (torch.randn(hidden, width), torch.randn(hidden)) if hidden else (None, None)
    return EmbeddingWeights(
        torch.randn(vocabulary, width) + 0.5,
        torch.randn(9, width) * 0.3 - 1,
        torch.randn(2, width) * 0.1,
        torch.rand(width) + 0.5,
        torch.randn(width),
        eps,
        *projection,
    )


def tokens(given, number=300):
    torch.manual_seed(1)
    ids, positions, types = (
        torch.randint(len(table), (number,)) for table in (given.words_VE, given.positions_PE, given.types_TE)
    )
    return subspace.TokenSample(ids, positions, types)


def first_states(given, found):
    return given.finished(given.normalized(given.sums(found.ids_N, found.positions_N, found.types_N)))


def textbook(given, basis_ER, found):
    """Token by token: project the centred sum, divide by the deviation of what is left, scale, shift, project."""
    rows = []
    project = (basis_ER @ basis_ER.T).numpy()
    for token, position, kind in zip(found.ids_N, found.positions_N, found.types_N, strict=True):
        total = given.words_VE[token] + given.positions_PE[position] + given.types_TE[kind]
        total = total.double().numpy()
        left = project @ (total - total.mean())
        deviation = math.sqrt(sum(value * value for value in left) / len(left) + given.eps)
        state = left / deviation * given.weight_M.double().numpy() + given.bias_M.double().numpy()
        if given.projection_HE is not None:
            state = given.projection_HE.double().numpy() @ state + given.offset_H.double().numpy()
        rows.append(state)
    return torch.tensor(np.array(rows))


@pytest.mark.parametrize("size", [1, 2, 3, 32, 768])
def test_the_basis_of_vectors_that_sum_to_zero(size):
    basis = sum_free_basis(size)
    assert basis.shape == (size, size - 1)
    assert torch.allclose(basis.T @ basis, torch.eye(size - 1, dtype=torch.float64), atol=1e-12)
    assert basis.sum(0).abs().max().item() < 1e-10 if size > 1 else True


@pytest.mark.parametrize("hidden", [None, 20])
@pytest.mark.parametrize("rank", [1, 2, 5, 11, 12])
def test_any_rank_is_the_textbook_projection(rank, hidden):
    given = embedding(hidden=hidden)
    found = tokens(given)
    basis, _ = principal_basis(subspace.moment(given, found), given.num_directions(rank))
    narrow = factorized(given, basis)
    assert narrow.words_VE.shape == (40, rank) and narrow.width == rank
    assert torch.allclose(first_states(narrow, found).double(), textbook(given, basis, found), atol=2e-5)


@pytest.mark.parametrize("eps", [1e-12, 1e-5, 1e-2])
def test_full_rank_loses_nothing_whatever_eps_is(eps):
    given = embedding(eps=eps, width=32)
    found = tokens(given)
    basis, explained = principal_basis(subspace.moment(given, found), given.width - 1)
    assert explained[-1].item() == pytest.approx(1) and explained[0].item() == 0
    assert torch.allclose(first_states(factorized(given, basis), found), first_states(given, found), atol=1e-5)


@pytest.mark.parametrize("rank", [1, 5, 11])
@pytest.mark.parametrize("hidden", [None, 20])
def test_a_projection_before_the_norm_is_the_textbook_one_of_what_the_norm_is_given(rank, hidden):
    wide = embedding(hidden=hidden)
    size = hidden or 12
    given = replace(wide, weight_M=torch.rand(size) + 0.5, bias_M=torch.randn(size), offset_H=None, projects_first=True)
    found = tokens(given)
    basis, explained = principal_basis(subspace.moment(given, found), given.num_directions(rank))
    narrow = factorized(given, basis)
    assert narrow.words_VE.shape == (40, rank) and narrow.projection_HE.shape == (size, rank)
    sums = (
        given.words_VE[found.ids_N] + given.positions_PE[found.positions_N] + given.types_TE[found.types_N]
    ).double()
    sums = sums if hidden is None else sums @ given.projection_HE.double().T
    left = (sums - sums.mean(1, keepdim=True)) @ basis @ basis.T
    states = left / torch.sqrt(left.square().mean(1, keepdim=True) + given.eps)
    wanted = states * given.weight_M.double() + given.bias_M.double()
    assert torch.allclose(first_states(narrow, found).double(), wanted, atol=2e-5)
    nearer = subspace.refitted(given, narrow, found)
    before, after = ((first_states(one, found) - first_states(given, found)).norm() for one in (narrow, nearer))
    assert after < 1.01 * before + 1e-3, "directions of the moment itself are fitted already"
    assert explained[rank] > explained[rank - 1]


def test_explained_energy_is_what_the_projection_leaves_of_the_moment():
    given = embedding()
    moment = subspace.moment(given, tokens(given))
    basis, explained = principal_basis(moment, 5)
    kept = torch.trace(basis.T @ moment @ basis) / torch.trace(moment)
    assert explained[5].item() == pytest.approx(kept.item())


def test_frequent_tokens_decide_the_subspace():
    given = embedding(width=16)
    often = subspace.TokenSample(*(column[:1].repeat(50) for column in vars(tokens(given)).values()))
    basis, _ = principal_basis(subspace.moment(given, often), 1)
    assert torch.allclose(first_states(factorized(given, basis), often), first_states(given, often), atol=1e-4)


def test_a_sensitive_basis_costs_less_than_the_principal_one():
    torch.manual_seed(2)
    width, rank = 24, 7
    inner = sum_free_basis(width)
    moment = inner @ torch.diag(torch.linspace(2, 0.1, width - 1).double()) @ inner.T
    turn = torch.linalg.qr(torch.randn(width, width, dtype=torch.float64)).Q
    cost = turn @ torch.diag(torch.logspace(1, -3, width, dtype=torch.float64)) @ turn.T

    def price(basis):
        left = torch.eye(width, dtype=torch.float64) - basis @ basis.T - 1 / width
        return torch.trace(cost @ left @ moment @ left).item()

    principal, _ = principal_basis(moment, rank)
    found = subspace.sensitive_basis(moment, cost, rank)
    assert torch.allclose(found.T @ found, torch.eye(rank, dtype=torch.float64), atol=1e-8)
    assert found.sum(0).abs().max().item() < 1e-8
    assert price(found) < 0.9 * price(principal)
    even = subspace.sensitive_basis(moment, torch.eye(width, dtype=torch.float64), rank)
    assert price(even) == pytest.approx(price(principal), rel=0.02), "equal costs leave the principal basis"


def test_a_refitted_projection_is_nearer_on_the_tokens_it_is_fitted_to():
    given = embedding(width=16)
    found = tokens(given, 4000)
    narrow = factorized(given, principal_basis(subspace.moment(given, found), 5)[0])
    better = subspace.refitted(given, narrow, found)
    before, after = ((first_states(one, found) - first_states(given, found)).norm() for one in (narrow, better))
    assert after < 0.98 * before
    assert torch.equal(better.words_VE, narrow.words_VE)


def test_sensitivity_is_that_of_the_last_hidden_states():
    encoder = tiny_encoder("bert", "embedding")
    given = decompose(encoder).embedding
    with torch.no_grad():  # the layers read nothing but the first number of each token
        first = torch.zeros_like(encoder.model.embeddings.LayerNorm.weight)
        first[0] = 1
        encoder.model.embeddings.LayerNorm.weight.copy_(first)
    given = replace(given, weight_M=first)
    found = subspace.sensitivity(encoder, given, encoder.tokenize(sentences(40, seed=3)), 200, seed=0)
    floor = found.diag()[1:]
    assert found[0, 0] > 100 * floor.max() and torch.allclose(floor, floor[0].expand_as(floor))
    assert found.trace().item() == pytest.approx(given.width)


def test_rows_by_zipfs_law_are_framed_and_lean_to_the_vocabularys_start():
    encoder = tiny_encoder()
    rows = zipf_rows(encoder, 200, 16, seed=0)
    assert {row["input_ids"][0] for row in rows} == {encoder.tokenizer.cls_token_id}
    assert {row["input_ids"][-1] for row in rows} == {encoder.tokenizer.sep_token_id}
    inside = [i for row in rows for i in row["input_ids"][1:-1]]
    assert not set(inside) & set(encoder.tokenizer.all_special_ids)
    half = encoder.shape.vocab_size // 2
    assert sum(i < half for i in inside) > 0.6 * len(inside)
    assert rows == zipf_rows(encoder, 200, 16, seed=0)
    even = [i for row in uniform_rows(encoder, 200, 16, seed=0) for i in row["input_ids"][1:-1]]
    assert 0.4 * len(even) < sum(i < half for i in even) < 0.6 * len(even)


def shaken(family, task, **more):
    """A tiny encoder no weight of which is 0 or 1 by nature."""
    encoder = tiny_encoder(family, task, **more)
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in encoder.model.parameters():
            parameter.add_(torch.randn_like(parameter) * min(0.1, encoder.model.config.initializer_range))
    return encoder


def converted(encoder, rank=None):
    """The encoder factorized without any shortcut, at full rank unless told otherwise."""
    parts, family = decompose(encoder), target_family(encoder.anatomy.family, encoder.task)
    given = parts.embedding
    copied = TASKS[encoder.task].has_masked_head or (family == "electra" and given.width == encoder.shape.hidden_size)
    if not copied:
        directions = given.num_directions(rank or given.width)
        basis, _ = principal_basis(subspace.moment(given, tokens(given, 500)), directions)
        parts = replace(parts, embedding=factorized(given, basis))
    if encoder.anatomy.family == "distilbert" and family == "electra":
        parts = replace(parts, head=steep(parts.head))
    return assemble(encoder, parts, family)


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("family", NARROWED)
def test_full_rank_is_the_same_model_as_a_stock_one(family, task, tmp_path):
    encoder = shaken(family, task)
    rows = encoder.tokenize(sentences(12, seed=4))
    found = converted(encoder)
    sequence = task in ("classification", "multi-label", "regression")
    others = {"distilbert": "electra", "electra": "electra"} if sequence else {}
    assert found.anatomy.family == ({"deberta-v2": "deberta-v2"} | others).get(family, "albert")
    assert found.shape.embedding_size == decompose(encoder).embedding.width
    found.save(tmp_path)
    again = Encoder.load(tmp_path, task)
    assert again.tokenize(sentences(12, seed=4)) == [{k: r[k] for k in again.tokenize(["a"])[0]} for r in rows]
    assert (again.labels, again.task) == (encoder.labels, task)
    assert again.max_length == encoder.max_length
    for mine, theirs in zip(again.predict(rows), encoder.predict(rows), strict=True):
        for name, values in theirs.items():
            assert np.abs(mine[name] - values).max() < 2e-5, name


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "sizes"),
    [
        *((family, {}) for family in ("bert", "roberta", "distilbert", "electra")),
        # Weights as great as trained ones: in larger ones rounding grows from layer to layer.
        ("bert", {"hidden_size": 768, "num_attention_heads": 12, "initializer_range": 0.04}),
        ("roberta", {"hidden_size": 768, "num_attention_heads": 12, "initializer_range": 0.04, "layer_norm_eps": 1e-5}),
        ("electra", {"hidden_size": 256, "embedding_size": 128, "initializer_range": 0.04}),
    ],
)
def test_a_plain_albert_model_has_the_same_last_hidden_states_at_attended_positions(family, sizes, tmp_path):
    encoder = shaken(family, "embedding", **sizes)
    converted(encoder).save(tmp_path)
    plain = transformers.AlbertModel.from_pretrained(tmp_path).eval()
    rows = encoder.tokenize(sentences(6, seed=8))
    longest = max(len(row["input_ids"]) for row in rows)
    ids = torch.full((6, longest), encoder.tokenizer.pad_token_id)
    mask = torch.zeros(6, longest, dtype=torch.long)
    for i, row in enumerate(rows):
        ids[i, : len(row["input_ids"])] = torch.tensor(row["input_ids"])
        mask[i, : len(row["input_ids"])] = 1
    with torch.no_grad():
        mine = plain(input_ids=ids, attention_mask=mask).last_hidden_state
        theirs = encoder.model(input_ids=ids, attention_mask=mask).last_hidden_state
    assert (mine - theirs)[mask.bool()].abs().max().item() < (1e-4 if sizes else 1e-5)


def test_what_decides_training_and_reading_is_carried_over(tmp_path):
    encoder = tiny_encoder("roberta", "multi-label", hidden_dropout_prob=0.25, attention_probs_dropout_prob=0.15)
    encoder.model.config.layer_norm_eps, encoder.model.config.hidden_act = 1e-5, "relu"
    config = converted(encoder).model.config
    assert (config.hidden_dropout_prob, config.attention_probs_dropout_prob) == (0.25, 0.15)
    assert (config.classifier_dropout_prob, config.layer_norm_eps, config.hidden_act) == (0.25, 1e-5, "relu")
    assert config.problem_type == "multi_label_classification" and config.type_vocab_size == 2
    special = ("pad_token_id", "bos_token_id", "eos_token_id")
    assert [getattr(config, name) for name in special] == [getattr(encoder.model.config, name) for name in special]


def test_left_padding_is_refused_where_positions_follow_padding():
    encoder = tiny_encoder("roberta")
    encoder.tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=encoder.tokenizer.backend_tokenizer, pad_token="<pad>", padding_side="left"
    )
    with pytest.raises(UserError, match="pads on the left"):
        converted(encoder)
