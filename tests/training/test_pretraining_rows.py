"""Running text packed into rows: equal to a slow plain version, pairs of segments by their papers, made again alike."""

import numpy as np
import pytest

from bertshrink.data.formats.corpus import Corpus
from bertshrink.errors import UserError
from bertshrink.files.atomic import MANIFEST
from bertshrink.progress import Silent
from bertshrink.training.rows.batching import Collator
from bertshrink.training.rows.masking import TokenMasker
from bertshrink.training.rows.pretraining_rows import PackedRows, TokenStore, split_sentences
from tests.support.tiny import sentences, tiny_tokenizer

TOKENIZER = tiny_tokenizer("bert")
CLS, SEP = TOKENIZER.cls_token_id, TOKENIZER.sep_token_id
LENGTH = 24


def store_of(folder, documents, tokenizer=TOKENIZER):
    file = folder / "train.txt"
    file.write_text("\n\n".join("\n".join(lines) for lines in documents), encoding="utf-8")
    return TokenStore.of(Corpus((file,)), tokenizer, folder / "tokens", Silent())


@pytest.fixture(scope="module")
def documents():
    """Forty documents of one to nine sentences, one of them longer than a row."""
    generator = np.random.default_rng(3)
    found = [sentences(int(generator.integers(1, 10)), seed, 1, 12) for seed in range(40)]
    found[7] = [" ".join(sentences(8, 99))]
    return found


@pytest.fixture(scope="module")
def store(documents, tmp_path_factory):
    return store_of(tmp_path_factory.mktemp("store"), documents)


@pytest.fixture(scope="module")
def ids(documents):
    """Document -> sentence -> ids, by the tokenizer alone."""
    return [[TOKENIZER(line, add_special_tokens=False)["input_ids"] for line in lines] for lines in documents]


def segments(row):
    """The ids between the special tokens of a row of two segments."""
    tokens, types = row["input_ids"], row["token_type_ids"]
    first = types.index(1)
    assert tokens[0] == CLS and tokens[first - 1] == SEP and tokens[-1] == SEP
    assert types == [0] * first + [1] * (len(tokens) - first) and row["attention_mask"] == [1] * len(tokens)
    return tokens[1 : first - 1], tokens[first:-1]


def is_part(part, whole):
    return any(whole[i : i + len(part)] == part for i in range(len(whole) - len(part) + 1))


def flat(lists):
    return [item for inner in lists for item in inner]


def test_the_store_holds_the_corpus(store, ids):
    assert store.num_tokens == len(flat(flat(ids)))
    assert store.tokens.tolist() == flat(flat(ids)) and store.tokens.dtype == np.uint16
    assert np.diff(store.first_of_document).tolist() == [len(document) for document in ids]
    assert np.diff(store.starts).tolist() == [len(sentence) for sentence in flat(ids)]
    assert store.sentences(2, 5).tolist() == flat(flat(ids)[2:5])


def test_the_store_is_made_once_for_a_corpus_and_a_tokenizer(documents, tmp_path):
    store_of(tmp_path, documents)
    (folder,) = (tmp_path / "tokens").iterdir()
    made = (folder / MANIFEST).stat().st_mtime_ns
    store_of(tmp_path, documents)
    assert [f.name for f in (tmp_path / "tokens").iterdir()] == [folder.name]
    assert (folder / MANIFEST).stat().st_mtime_ns == made
    store_of(tmp_path, documents[1:])
    store_of(tmp_path, documents, tiny_tokenizer("roberta"))
    assert len(list((tmp_path / "tokens").iterdir())) == 3


def test_no_token_is_an_error_and_sentences_without_one_are_left_out(tmp_path):
    with pytest.raises(UserError, match="no text"):
        store_of(tmp_path, [["\u200b"]], bytes_free())
    store = store_of(tmp_path, [["the day", "\u200b"], ["\u200b"], ["a word"]], bytes_free())
    assert np.diff(store.starts).tolist() == [2, 2] and store.first_of_document.tolist() == [0, 1, 2]


def bytes_free():
    """A tokenizer that sees nothing in a zero-width space, as BERT's normalizer does."""
    import copy

    from tokenizers import normalizers

    found = copy.deepcopy(TOKENIZER)
    found.backend_tokenizer.normalizer = normalizers.BertNormalizer()
    return found


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("One. Two! Three? four", ["One.", "Two!", "Three? four"]),
        ('He said "No." Then (maybe.) He left.', ['He said "No."', "Then (maybe.)", "He left."]),
        ("See “it.” “Then” go.", ["See “it.”", "“Then” go."]),
        ("It is 3.5 km.Next", ["It is 3.5 km.Next"]),
        ('What?! "Yes.") 9 of them.', ["What?!", '"Yes.")', "9 of them."]),
        ("no end", ["no end"]),
        ("   ", []),
    ],
)
def test_lines_are_split_at_sentence_ends_and_lose_nothing(line, expected):
    assert split_sentences(line) == expected
    assert "".join("".join(expected).split()) == "".join(line.split())


def test_byte_level_tokens_of_a_sentence_begin_a_word(tmp_path):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    names = ["<s>", "<pad>", "</s>", "<mask>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    inner.train_from_iterator([], trainers.BpeTrainer(special_tokens=names, initial_alphabet=alphabet))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, cls_token="<s>", sep_token="</s>", pad_token="<pad>")
    store = store_of(tmp_path, [["One. Two.", "Three."], ["Four. Five."]], tokenizer)
    rows = PackedRows(store, tokenizer, "full-sentences", 64, 0)
    assert len(rows) == 1
    assert tokenizer.decode(rows[0][0]["input_ids"]) == "<s>One. Two. Three.</s>Four. Five.</s>"


@pytest.mark.parametrize("length", [LENGTH, 7, 4000])
def test_full_sentences_equal_a_slow_plain_version(store, ids, length):
    rows = PackedRows(store, TOKENIZER, "full-sentences", length, seed=0)
    stream = flat(ids[0])
    for document in ids[1:]:
        stream += [SEP, *flat(document)]
    room = length - 2
    plain = [stream[i : i + room] for i in range(0, len(stream) - room + 1, room)] or [stream]
    assert [rows[i][0]["input_ids"] for i in range(len(rows))] == [[CLS, *window, SEP] for window in plain]
    assert rows.lengths == [len(window) + 2 for window in plain]
    assert rows[0][1:] == (None, 0, 0) and rows[0][0]["token_type_ids"] == [0] * (len(plain[0]) + 2)


@pytest.mark.parametrize("manner", ["next-sentence", "sentence-order"])
def test_rows_of_two_segments_fit_and_both_hold_text(store, manner):
    rows = PackedRows(store, TOKENIZER, manner, LENGTH, seed=0)
    lengths, labels, sizes = rows.lengths, [], []
    for epoch in range(8):
        rows.epoch = epoch
        for at in range(len(rows)):
            row, label, number, when = rows[at]
            a, b = segments(row)
            assert a and b and len(row["input_ids"]) <= min(lengths[at], LENGTH)
            assert (number, when) == (at, epoch)
            labels.append(label)
            sizes.append(len(row["input_ids"]) == lengths[at])
    assert set(labels) == {0, 1}
    assert 0.8 < np.mean(sizes) < 0.99  # a tenth are cut short


def test_half_of_the_second_segments_are_from_another_document(store, ids):
    """Of the pieces with more than one sentence: a lone one is always followed by another document's."""
    rows = PackedRows(store, TOKENIZER, "next-sentence", LENGTH, seed=0)
    found = []
    for epoch in range(30):
        rows.epoch = epoch
        for at, (first, last) in enumerate(rows.rows_N2.tolist()):
            row, label, *_ = rows[at]
            a, b = segments(row)
            own = int(np.searchsorted(store.first_of_document, first, side="right")) - 1
            assert is_part(a, flat(ids[own]))
            if label == 0:
                assert is_part(b, store.sentences(first, last).tolist())
            else:
                assert any(is_part(b, flat(document)) for number, document in enumerate(ids) if number != own)
            if last - first > 1:
                found.append((label, len(a) + len(b)))
            else:
                assert label == 1
    labels, sizes = np.array(found).T
    assert labels.mean() == pytest.approx(0.5, abs=0.03)
    # A classifier of lengths must not see the label: only documents that end early make a pair shorter.
    assert sizes[labels == 1].mean() == pytest.approx(sizes[labels == 0].mean(), rel=0.06)


def test_a_corpus_of_one_document_draws_from_it(tmp_path):
    rows = PackedRows(store_of(tmp_path, [sentences(30)]), TOKENIZER, "next-sentence", LENGTH, seed=0)
    assert {rows[at][1] for at in range(len(rows))} == {0, 1}


def test_sentence_order_swaps_two_consecutive_segments(store):
    rows = PackedRows(store, TOKENIZER, "sentence-order", LENGTH, seed=1)
    labels, whole = [], 0
    for epoch in range(20):
        rows.epoch = epoch
        for at, (first, last) in enumerate(rows.rows_N2.tolist()):
            row, label, *_ = rows[at]
            a, b = segments(row)
            text = store.sentences(first, last).tolist()
            labels.append(label)
            assert is_part(a, text) and is_part(b, text)
            if len(a) + len(b) == len(text):
                whole += 1
                assert (b + a if label else a + b) == text
    assert whole > 200
    assert np.mean(labels) == pytest.approx(0.5, abs=0.03)


def test_one_token_has_no_order(tmp_path):
    with pytest.raises(UserError, match="too little text"):
        PackedRows(store_of(tmp_path, [["word"]]), TOKENIZER, "sentence-order", LENGTH, seed=0)


@pytest.mark.parametrize("manner", ["full-sentences", "next-sentence", "sentence-order"])
def test_rows_and_masks_are_made_again_alike_and_differ_by_epoch(store, manner):
    first, again, other = (PackedRows(store, TOKENIZER, manner, LENGTH, seed) for seed in (0, 0, 1))
    collate = Collator("mlm", 0, masker=TokenMasker(TOKENIZER, 0.15, whole_word=False, seed=0))

    def batch(rows, epoch, order):
        rows.epoch = epoch
        made = {at: rows[at] for at in order}  # whatever was made before
        return {name: block.tolist() for name, block in collate([made[at] for at in range(16)]).items()}

    there, back = range(16), reversed(range(16))
    assert batch(first, 2, there) == batch(again, 2, back)
    assert batch(first, 3, there)["labels"] != batch(again, 2, there)["labels"]
    is_random = manner != "full-sentences"
    assert (batch(other, 2, there)["input_ids"] != batch(first, 2, there)["input_ids"]) == is_random
    assert ("pairs" in batch(first, 0, there)) == is_random
