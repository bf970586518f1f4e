"""Masks of whole words, whatever way a vocabulary writes where a word begins; statistics of every share."""

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from bertshrink.data.encoding import IGNORED
from bertshrink.training.rows.masking import TokenMasker, word_starts

SPECIAL = {
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "mask_token": "[MASK]",
}
PIECES = {
    "wordpiece": ["run", "##ning", "##s", "up", ".", "hill", "##side"],
    "byte-level": ["Ġrun", "ning", "s", "Ġup", "Ġ.", "Ġhill", "side"],
    "metaspace": ["▁run", "ning", "s", "▁up", "▁.", "▁hill", "side"],
}
STARTS = [True, False, False, True, True, True, False]


def tokenizer_of(pieces):
    vocab = {token: i for i, token in enumerate([*SPECIAL.values(), *pieces])}
    inner = Tokenizer(models.WordLevel(vocab, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=inner, **SPECIAL)


def words_of(ids, starts_V, special_V):
    """The plain version: positions of each word, one after the other."""
    words, open_word = [], False
    for at, token in enumerate(ids):
        if special_V[token]:
            open_word = False
        elif open_word and not starts_V[token]:
            words[-1].append(at)
        else:
            words.append([at])
            open_word = True
    return words


@pytest.mark.parametrize("kind", PIECES)
def test_the_vocabulary_says_where_words_begin(kind):
    starts = word_starts(tokenizer_of(PIECES[kind]))
    assert starts[len(SPECIAL) :].tolist() == STARTS


@pytest.mark.parametrize("whole_word", [False, True])
def test_a_vocabulary_with_holes(whole_word):
    """As a vocab.txt with blank or doubled lines has them: the largest id is beyond the number of tokens."""
    vocab = {token: 2 * i for i, token in enumerate([*SPECIAL.values(), *PIECES["wordpiece"]])}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel(vocab, "[UNK]")), **SPECIAL)
    masker = TokenMasker(tokenizer, 0.5, whole_word=whole_word, seed=0)
    ids = [vocab[token] for token in PIECES["wordpiece"]] * 9
    masked = np.concatenate([masker(ids, 0, number)[0] for number in range(20)])
    assert set(masked.tolist()) <= set(vocab.values()) and tokenizer.mask_token_id in masked


@pytest.mark.parametrize("kind", PIECES)
def test_words_are_masked_whole(kind):
    tokenizer = tokenizer_of(PIECES[kind])
    masker = TokenMasker(tokenizer, 0.15, whole_word=True, seed=0)
    generator = np.random.default_rng(1)
    num_chosen = num_words = 0
    for number in range(300):
        ids = generator.integers(len(SPECIAL), len(tokenizer), size=60)
        # As packed rows are: a separator in the middle, after which no piece goes on with the word before it.
        ids[[0, 30, 59]] = tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.sep_token_id
        masked, labels = masker(ids.tolist(), 0, number)
        chosen = labels != IGNORED
        assert not chosen[[0, 30, 59]].any()
        assert (labels[chosen] == ids[chosen]).all() and (masked[~chosen] == ids[~chosen]).all()
        for word in words_of(ids, word_starts(tokenizer), masker.is_special_V):
            assert len(set(chosen[word])) == 1, "all pieces of a word or none"
            num_chosen, num_words = num_chosen + chosen[word[0]], num_words + 1
    assert num_chosen / num_words == pytest.approx(0.15, abs=0.01)


def test_neighbouring_words_are_chosen_apart():
    tokenizer = tokenizer_of(PIECES["wordpiece"])
    masker = TokenMasker(tokenizer, 0.5, whole_word=True, seed=0)
    ids = tokenizer.convert_tokens_to_ids(["[CLS]", "run", "##ning", "[SEP]", "##s", "up", "[SEP]"])
    chosen = np.stack([masker(ids, 0, number)[1] != IGNORED for number in range(400)])
    for first, second in ((2, 4), (4, 5)):
        assert (chosen[:, first] == chosen[:, second]).mean() == pytest.approx(0.5, abs=0.1)
    assert (chosen[:, 1] == chosen[:, 2]).all()


@pytest.mark.parametrize("share", [0.15, 0.4])
@pytest.mark.parametrize("whole_word", [False, True])
def test_shares_of_masked_random_and_kept_tokens(share, whole_word):
    tokenizer = tokenizer_of([f"word{i}" for i in range(1000)])
    masker = TokenMasker(tokenizer, share, whole_word=whole_word, seed=5)
    ids = np.random.default_rng(0).integers(len(SPECIAL), len(tokenizer), size=(200, 128))
    thrown = [masker(row.tolist(), 1, number) for number, row in enumerate(ids)]
    masked, labels = (np.stack(part) for part in zip(*thrown, strict=True))
    chosen = labels != IGNORED
    assert chosen.mean() == pytest.approx(share, abs=0.01)
    assert (masked[chosen] == tokenizer.mask_token_id).mean() == pytest.approx(0.8, abs=0.02)
    assert (masked[chosen] == ids[chosen]).mean() == pytest.approx(0.1, abs=0.015)
    drawn = masked[chosen & (masked != ids) & (masked != tokenizer.mask_token_id)]
    assert len(set(drawn.tolist())) > 0.2 * len(drawn), "from all of the vocabulary"
    # Binomial, place by place: neither the ends nor the middle of rows are favoured.
    assert np.abs(chosen.mean(axis=0) - share).max() < 5 * np.sqrt(share * (1 - share) / 200)
