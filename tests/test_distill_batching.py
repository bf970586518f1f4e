"""Batches of like length, masks, and padding."""

import numpy as np
import pytest
import torch

from bertshrink.model.batches import by_length, pad
from bertshrink.techniques.distill.batching import Collator, LengthBuckets, mask_tokens
from bertshrink.techniques.distill.losses import IGNORED
from tests.tiny import sentences, tiny_encoder, tiny_tokenizer


@pytest.fixture
def lengths():
    return np.random.default_rng(0).integers(3, 60, size=500).tolist()


def test_every_row_once_an_epoch(lengths):
    sampler = LengthBuckets(lengths, 16, None, seed=1)
    for epoch in range(3):
        sampler.set_epoch(epoch)
        batches = list(sampler)
        assert sorted(i for batch in batches for i in batch) == list(range(500))
        assert len(batches) == len(sampler)


def test_same_seed_and_epoch_same_order_other_epoch_another(lengths):
    first, second = (LengthBuckets(lengths, 16, None, seed=1) for _ in range(2))
    assert list(first) == list(second)
    second.set_epoch(1)
    assert list(first) != list(second)


def test_little_padding(lengths):
    batches = list(LengthBuckets(lengths * 4, 16, None, seed=0))
    padded = sum(max((lengths * 4)[i] for i in batch) * len(batch) for batch in batches)
    assert padded / sum(lengths * 4) < 1.08
    unsorted = sum(max(lengths[i] for i in range(s, s + 16)) * 16 for s in range(0, 480, 16))
    assert unsorted / sum(lengths[:480]) > 1.5  # what bucketing is for


def test_every_epoch_has_as_many_batches_under_a_cap_on_tokens(lengths):
    for seed in range(20):
        sampler = LengthBuckets(lengths, 16, 100, seed=seed)
        for epoch in range(4):
            sampler.set_epoch(epoch)
            assert len(list(sampler)) == len(sampler)


def test_token_cap_holds(lengths):
    for batch in LengthBuckets(lengths, 64, 200, seed=0):
        assert len(batch) * max(lengths[i] for i in batch) <= 200 or len(batch) == 1


def test_by_length_keeps_every_row_and_the_cap(lengths):
    batches = by_length(lengths, 256)
    assert sorted(i for batch in batches for i in batch) == list(range(500))
    assert all(len(b) * max(lengths[i] for i in b) <= 256 for b in batches)


def test_pad_fills_ids_with_the_pad_id_and_the_rest_with_zero():
    rows = [{"input_ids": [5, 6, 7], "attention_mask": [1, 1, 1]}, {"input_ids": [8], "attention_mask": [1]}]
    found = pad(rows, pad_id=9)
    assert found["input_ids"].tolist() == [[5, 6, 7], [8, 9, 9]]
    assert found["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]


def test_predict_gives_rows_back_in_order_whatever_the_batches():
    encoder = tiny_encoder("bert", "mlm")
    rows = encoder.tokenize(sentences(9, longest=30))
    together, alone = encoder.predict(rows), [encoder.predict([row])[0] for row in rows]
    for row, mine, theirs in zip(rows, together, alone, strict=True):
        assert mine["logits"].shape[0] == len(row["input_ids"])
        assert np.allclose(mine["logits"], theirs["logits"], atol=1e-4)


def test_masking_follows_bert():
    tokenizer = tiny_tokenizer("bert")
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(5, len(tokenizer), (400, 50), generator=generator)
    ids[:, 0], ids[:, 40] = tokenizer.cls_token_id, tokenizer.sep_token_id
    attention = torch.ones_like(ids)
    attention[:, 41:] = 0
    masked, labels = mask_tokens(ids, attention, tokenizer, 0.15, generator)
    chosen = labels != IGNORED
    free = torch.zeros_like(chosen)
    free[:, 1:40] = True
    assert not (chosen & ~free).any()  # never special tokens, never padding
    assert float(chosen[free].float().mean()) == pytest.approx(0.15, abs=0.01)
    assert torch.equal(labels[chosen], ids[chosen])
    assert torch.equal(masked[~chosen], ids[~chosen])
    is_mask = masked[chosen] == tokenizer.mask_token_id
    same = masked[chosen] == ids[chosen]
    assert float(is_mask.float().mean()) == pytest.approx(0.8, abs=0.03)
    assert float(same.float().mean()) == pytest.approx(0.1, abs=0.02)


def test_collator_masks_anew_each_time():
    tokenizer = tiny_tokenizer("bert")
    rows = [(row, None) for row in tiny_encoder().tokenize(sentences(8))]
    torch.manual_seed(0)
    collate = Collator(tokenizer, 0.3)
    first, second = collate(rows), collate(rows)
    assert not torch.equal(first["labels"], second["labels"])
    assert set(first) == {"input_ids", "token_type_ids", "attention_mask", "labels"}
