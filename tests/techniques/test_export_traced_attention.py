"""Attention in the form in which it is traced: what PyTorch computes of tokens, whatever a configuration asks for."""

import onnx
import pytest
import torch

from bertshrink.model.artifact import ArtifactSpec
from bertshrink.model.families import FAMILIES
from bertshrink.techniques.export import Export
from bertshrink.techniques.export.parity import padded_text, shapes_of
from bertshrink.techniques.export.traced_attention import Distances, traced_attention, window_mask
from tests.support.families import SERVED
from tests.support.tiny import bench_of, tiny_encoder

pytestmark = pytest.mark.usefixtures("one_thread")
LONGER = (1, 1), (1, 7), (5, 31), (8, 128), (2, 300)
"""Shapes (batch, length) beyond two windows of 128 tokens."""


def states_of(model, feeds):
    given = {name: torch.from_numpy(values) for name, values in feeds.items() if name != "token_type_ids"}
    with torch.no_grad():
        return model(**given).last_hidden_state[given["attention_mask"].bool()]


def assert_same_states(encoder, batch=3, length=40):
    feeds = padded_text(encoder, batch, length)
    wanted = states_of(encoder.model, feeds)
    encoder.model.set_attn_implementation("eager")
    with traced_attention(encoder.model):
        given = states_of(encoder.model, feeds)
    torch.testing.assert_close(given, wanted, atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(states_of(encoder.model, feeds), wanted, atol=2e-5, rtol=1e-5)
    assert not [name for name, _ in encoder.model.named_buffers() if "distance" in name or "rows_of" in name]


@pytest.mark.parametrize("family", FAMILIES)
def test_states_of_tokens_are_those_of_the_class_and_nothing_is_left_behind(family):
    assert_same_states(tiny_encoder(family, "embedding"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "config",
    [
        {"share_att_key": False},
        {"pos_att_type": ["c2p"]},
        {"pos_att_type": ["p2c"], "share_att_key": False},
        {"pos_att_type": []},
        {"relative_attention": False},
        {"position_buckets": -1},
        {"position_buckets": -1, "max_relative_positions": 24},
        {"norm_rel_ebd": "none"},
        {"conv_kernel_size": 3, "conv_act": "gelu"},
        {"conv_kernel_size": 3, "conv_groups": 2},
        {"position_biased_input": True, "type_vocab_size": 2},
        {"embedding_size": 32},
    ],
    ids=str,
)
def test_distances_are_what_the_configuration_makes_of_them(config, tmp_path):
    encoder = tiny_encoder("deberta-v2", "embedding", num_hidden_layers=2, **config)  # a convolution is in the first
    assert_same_states(encoder)
    Export()(encoder, bench_of(encoder, tmp_path))  # its parity is checked


def test_grouped_dense_layers_are_a_product_of_each_group(tmp_path):
    encoder = tiny_encoder("convbert", num_groups=2)
    before = list(encoder.model.state_dict())
    made = Export()(encoder, bench_of(encoder, tmp_path))  # its parity is checked
    num_others, num_grouped = 26, 2 * encoder.shape.num_layers
    assert made.card.details["num_weight_matmuls"] == num_others + 2 * num_grouped
    assert list(encoder.model.state_dict()) == before
    assert not [name for name, _ in encoder.model.named_buffers() if "weight_" in name]


def test_dense_layers_that_no_text_goes_through_are_not_looked_for(tmp_path):
    encoder = tiny_encoder("mobilebert", "embedding", use_bottleneck_attention=True, normalization_type="layer_norm")
    Export()(encoder, bench_of(encoder, tmp_path))


def test_distances_between_tokens_are_taken_from_a_row_of_each():
    length, most = 4, 6
    rows = torch.arange(1 - most, most + 1).float()
    distances = Distances(length, most)
    each = distances.of_texts(rows, 0) + torch.zeros(1, 1, length, 1)
    wanted = torch.arange(length)[None, :] - torch.arange(length)[:, None]
    assert distances.of_texts(rows, 0).tolist() == [-3, -2, -1, 0, 1, 2, 3, 4]
    assert torch.equal(distances.between(each)[0, 0], wanted.float())


def test_a_window_sees_as_many_tokens_to_each_side_as_the_class():
    encoder = tiny_encoder("modernbert", "embedding", local_attention=6)
    mask = window_mask(torch.ones(1, 9), encoder.model.config.sliding_window)[0, 0]
    assert [(mask[4] == 0).nonzero().flatten().tolist()] == [[1, 2, 3, 4, 5, 6, 7]]


def test_a_lost_window_is_seen(tmp_path, monkeypatch):
    from bertshrink.errors import CheckFailed
    from bertshrink.techniques.export import traced_attention as module

    encoder = tiny_encoder("modernbert", "embedding")
    monkeypatch.setattr(module, "window_mask", lambda mask, most: torch.zeros(1, 1, 1, 1))
    with pytest.raises(CheckFailed, match="differs from PyTorch"):
        Export()(encoder, bench_of(encoder, tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("family", ["modernbert", "eurobert"])
def test_a_head_that_takes_a_mean_is_given_the_mask_of_tokens(family, pooling, tmp_path):
    pooling = {"eurobert": {"cls": "bos"}}.get(family, {}).get(pooling, pooling)
    encoder = tiny_encoder(family, "classification", classifier_pooling=pooling)
    Export()(encoder, bench_of(encoder, tmp_path))


@pytest.mark.slow
def test_heads_that_share_keys_are_exported(tmp_path):
    encoder = tiny_encoder("eurobert", "embedding", num_key_value_heads=2)
    assert (encoder.shape.num_key_value_heads, encoder.shape.key_value_size) == (2, 16)
    Export()(encoder, bench_of(encoder, tmp_path))


@pytest.mark.slow
def test_a_table_of_distances_is_stored_a_row_for_each(tmp_path):
    encoder = tiny_encoder("deberta-v2", "embedding", num_hidden_layers=2)
    model = onnx.load(Export()(encoder, bench_of(encoder, tmp_path)).file)
    tables = [list(stored.dims) for stored in model.graph.initializer if list(stored.dims) == [32, 32]]
    stored = {node.input[0] for node in model.graph.node if node.op_type == "Gather"}
    shapes = {stored.name: list(stored.dims) for stored in model.graph.initializer}
    looked_up = [shapes[name] for name in stored if shapes.get(name) == [32, 32]]
    assert len(looked_up) == 4 and len(tables) >= 4, "of keys and of queries in each layer, (2 x 16, hidden)"


@pytest.mark.slow
@pytest.mark.matrix
@pytest.mark.parametrize(("family", "task"), SERVED)
def test_parity_holds_beyond_two_windows_in_every_family_and_task(family, task, tmp_path, monkeypatch):
    monkeypatch.setattr("bertshrink.techniques.export.parity.SHAPES", LONGER)
    encoder = tiny_encoder(family, task, max_position_embeddings=320, num_hidden_layers=3)
    encoder.max_length = 310
    made = Export()(encoder, bench_of(encoder, tmp_path))
    assert tuple(made.card.details["parity"]) == tuple(f"{batch}x{length}" for batch, length in LONGER)


def test_a_model_of_long_texts_is_checked_with_one():
    assert shapes_of(ArtifactSpec(), 8192)[-1] == (1, 1024)
    assert shapes_of(ArtifactSpec(), 512)[-1] == (2, 512)
