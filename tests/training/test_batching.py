"""Batches of like length, labels of every shape, masks, and padding."""

import math

import numpy as np
import pytest
import torch

from bertshrink.data.encoding import IGNORED
from bertshrink.model.batches import batch_by_length, pad
from bertshrink.training.rows.batching import Collator, LengthBucketSampler, TokenizedRows
from bertshrink.training.rows.masking import TokenMasker, word_starts
from tests.support.tiny import sentences, tiny_encoder, tiny_tokenizer


@pytest.fixture
def lengths():
    return np.random.default_rng(0).integers(3, 60, size=500).tolist()


def test_every_row_once_an_epoch(lengths):
    sampler = LengthBucketSampler(lengths, 16, None, seed=1)
    for epoch in range(3):
        sampler.set_epoch(epoch)
        batches = list(sampler)
        assert sorted(i for batch in batches for i in batch) == list(range(500))
        assert len(batches) == len(sampler)


def test_same_seed_and_epoch_same_order_other_epoch_another(lengths):
    first, second = (LengthBucketSampler(lengths, 16, None, seed=1) for _ in range(2))
    assert list(first) == list(second)
    second.set_epoch(1)
    assert list(first) != list(second)


@pytest.mark.parametrize("world", [2, 3])
def test_several_processes_share_the_batches_of_one(lengths, world):
    whole = list(LengthBucketSampler(lengths, 16, None, seed=1))
    shares = [
        list(LengthBucketSampler(lengths, 16, None, seed=1, rank=rank, world_size=world)) for rank in range(world)
    ]
    for batch, *parts in zip(whole, *shares, strict=True):
        assert sorted(row for part in parts for row in part) == sorted(batch)
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_a_batch_of_fewer_rows_than_processes_leaves_nobody_idle():
    assert list(LengthBucketSampler([3], 16, None, seed=0, rank=1, world_size=2)) == [[0]]


def test_little_padding(lengths):
    batches = list(LengthBucketSampler(lengths * 4, 16, None, seed=0))
    padded = sum(max((lengths * 4)[i] for i in batch) * len(batch) for batch in batches)
    assert padded / sum(lengths * 4) < 1.08
    unsorted = sum(max(lengths[i] for i in range(s, s + 16)) * 16 for s in range(0, 480, 16))
    assert unsorted / sum(lengths[:480]) > 1.5  # what bucketing is for


def test_every_epoch_has_as_many_batches_under_a_cap_on_tokens(lengths):
    for seed in range(20):
        sampler = LengthBucketSampler(lengths, 16, 100, seed=seed)
        for epoch in range(4):
            sampler.set_epoch(epoch)
            assert len(list(sampler)) == len(sampler)


def test_token_cap_holds(lengths):
    for batch in LengthBucketSampler(lengths, 64, 200, seed=0):
        assert len(batch) * max(lengths[i] for i in batch) <= 200 or len(batch) == 1


def test_by_length_keeps_every_row_and_the_cap(lengths):
    batches = batch_by_length(lengths, 256)
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


ROWS = [{"input_ids": [5, 6, 7]}, {"input_ids": [8]}]
NAN = math.nan


@pytest.mark.parametrize(
    ("task", "labels", "expected"),
    [
        ("classification", (1, None), [1, IGNORED]),
        ("regression", (0.5, None), [0.5, NAN]),
        ("multi-label", ((1.0, 0.0), None), [[1.0, 0.0], [NAN, NAN]]),
        ("question-answering", ((1, 2), None), [[1, 2], [IGNORED, IGNORED]]),
        ("token-classification", ((0, 2, IGNORED), None), [[0, 2, IGNORED], [IGNORED] * 3]),
        ("token-classification", (None, (4,)), [[IGNORED] * 3, [4, IGNORED, IGNORED]]),
    ],
)
def test_labels_of_every_shape(task, labels, expected):
    rows = TokenizedRows(ROWS, labels)
    batch = Collator(task, 0, num_labels=2)([rows[0], rows[1]])
    assert batch["rows"].tolist() == [0, 1]
    assert torch.equal(
        torch.nan_to_num(batch["labels"].float(), 99), torch.nan_to_num(torch.tensor(expected).float(), 99)
    )


def test_a_sentence_encoder_has_no_labels():
    rows = TokenizedRows(ROWS, [None, None])
    assert set(Collator("embedding", 0)([rows[1]])) == {"input_ids", "rows"}


def thrown(masker, rows=400, length=52, epoch=0):
    tokenizer = tiny_tokenizer("bert")
    generator = np.random.default_rng(0)
    ids = generator.integers(5, len(tokenizer), size=(rows, length))
    ids[:, 0], ids[:, -1] = tokenizer.cls_token_id, tokenizer.sep_token_id
    found = [masker(row.tolist(), epoch, number) for number, row in enumerate(ids)]
    return ids, np.stack([m for m, _ in found]), np.stack([label for _, label in found])


def test_masking_follows_bert():
    tokenizer = tiny_tokenizer("bert")
    ids, masked, labels = thrown(TokenMasker(tokenizer, 0.15, whole_word=False, seed=0))
    chosen = labels != IGNORED
    assert not chosen[:, [0, -1]].any()  # never special tokens
    assert chosen[:, 1:-1].mean() == pytest.approx(0.15, abs=0.01)
    assert (labels[chosen] == ids[chosen]).all()
    assert (masked[~chosen] == ids[~chosen]).all()
    assert (masked[chosen] == tokenizer.mask_token_id).mean() == pytest.approx(0.8, abs=0.03)
    assert (masked[chosen] == ids[chosen]).mean() == pytest.approx(0.1, abs=0.02)


def test_masks_depend_on_seed_epoch_and_row_alone():
    tokenizer = tiny_tokenizer("bert")
    first, again, other = (TokenMasker(tokenizer, 0.3, whole_word=False, seed=seed) for seed in (0, 0, 1))
    ids = list(range(5, 45))
    same = [masker(ids, 2, 7)[1].tolist() for masker in (first, again)]
    assert same[0] == same[1]
    assert len({str(found) for found in (same[0], *(first(ids, *at)[1].tolist() for at in ((3, 7), (2, 8))))}) == 3
    assert other(ids, 2, 7)[1].tolist() != same[0]


class Pieces:
    """A WordPiece vocabulary of which every second token continues a word."""

    mask_token_id, all_special_ids = 3, [0, 1, 2, 3]

    def get_vocab(self):
        words = [f"w{i}" if i % 2 == 0 else f"##w{i}" for i in range(4, 40)]
        return {token: i for i, token in enumerate(["[PAD]", "[CLS]", "[SEP]", "[MASK]", *words])}


def test_whole_words_are_masked_whole():
    masker = TokenMasker(Pieces(), 0.3, whole_word=True, seed=0)
    ids = [1, *([4, 5, 7, 6, 8, 9] * 20), 2]
    begins = word_starts(Pieces())
    shares = []
    for number in range(100):
        chosen = masker(ids, 0, number)[1] != IGNORED
        for at in range(2, len(ids) - 1):
            if not begins[ids[at]]:
                assert chosen[at] == chosen[at - 1]
        shares.append(chosen[1:-1].mean())
    assert np.mean(shares) == pytest.approx(0.3, abs=0.02)


def test_collator_masks_anew_each_epoch_and_keeps_padding_out():
    tokenizer = tiny_tokenizer("bert")
    rows = TokenizedRows(tiny_encoder().tokenize(sentences(8)), [None] * 8)
    collate = Collator("mlm", tokenizer.pad_token_id, masker=TokenMasker(tokenizer, 0.3, whole_word=False, seed=0))
    first = collate([rows[i] for i in range(8)])
    rows.epoch = 1
    second = collate([rows[i] for i in range(8)])
    assert not torch.equal(first["labels"], second["labels"])
    assert set(first) == {"input_ids", "token_type_ids", "attention_mask", "labels", "rows"}
    assert (first["labels"][first["attention_mask"] == 0] == IGNORED).all()


def test_labels_of_two_segments_go_beside_the_masks():
    tokenizer = tiny_tokenizer("bert")
    rows = TokenizedRows(tiny_encoder().tokenize(sentences(4)), [0, 1, 1, 0])
    collate = Collator("mlm", tokenizer.pad_token_id, masker=TokenMasker(tokenizer, 0.3, whole_word=False, seed=0))
    assert collate([rows[i] for i in range(4)])["pairs"].tolist() == [0, 1, 1, 0]
