"""Tokenizers: what their files say is what texts are read by, or they are refused."""

import json
import unicodedata
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers.models.bert.tokenization_bert_legacy import BertTokenizerLegacy

from bertshrink.data.encoding import encode
from bertshrink.data.texts import Split
from bertshrink.errors import MissingDependency, UnsafeModel, UserError
from bertshrink.model.artifact import Artifact
from bertshrink.model.batches import tokenize
from bertshrink.model.checks import tokenizer_files
from bertshrink.model.checks.tokenizer import read_tokenizer
from bertshrink.model.checks.tokenizer_files import check_files, refuse_pieces, refuse_unconvertible
from bertshrink.model.encoder import Encoder
from tests.support.tiny import WORDS, tiny_encoder

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
TEXTS = (
    *tokenizer_files._TEXTS,
    "STRASSE straße ẞ \u0130 ﬃ ½",
    "Всё, что нас не убивает",
    "मैं हिन्दी बोलता हूँ।",
    "a  b \t c\u00a0d\u200be \ufeff",
    "The [MASK] was [SEP]",
    "",
)
LETTERS = sorted({letter for text in TEXTS for form in (text, text.lower()) for letter in form if not letter.isspace()})
VOCABULARY = [*SPECIAL, *WORDS, *LETTERS, *(f"##{letter}" for letter in LETTERS)]
VOCABULARY = list(dict.fromkeys(VOCABULARY))


@pytest.fixture
def folder(tmp_path):
    """A model's configuration and a vocabulary alone, as the first checkpoints had it."""
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    (tmp_path / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    return tmp_path


def read(folder):
    """The tokenizer, its ids of all texts, and what is noted."""
    tokenizer = read_tokenizer(folder)
    tokenizer, notes = check_files(folder, tokenizer)
    return tokenizer, ids_of(tokenizer, TEXTS), notes


def ids_of(tokenizer, texts):
    return [row["input_ids"] for row in tokenize(tokenizer, texts, None, 64)]


def folder_of(place, vocabulary, task="classification", rows=None):
    place.mkdir()
    tiny_encoder("bert", task, vocab_size=rows or len(vocabulary), pad_token_id=0).save(place)
    for path in place.glob("*token*"):
        path.unlink()
    (place / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    return place


def say(folder, name="tokenizer_config.json", **values):
    (folder / name).write_text(json.dumps(values))


def refusal(folder):
    with pytest.raises(UnsafeModel) as caught:
        read(folder)
    assert caught.value.where and caught.value.hint
    return caught.value


# Slow ones


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"do_lower_case": False},
        {"do_lower_case": True, "strip_accents": False},
        {"do_lower_case": False, "strip_accents": True},
        {"tokenize_chinese_chars": False},
        {"do_basic_tokenize": True, "never_split": None},
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_vocabulary_alone_is_read_as_the_slow_tokenizer_reads_it(folder, settings, end):
    (folder / "vocab.txt").write_text(end.join(VOCABULARY) + end, newline="")
    say(folder, **settings)
    tokenizer, _, notes = read(folder)
    slow = BertTokenizerLegacy(str(folder / "vocab.txt"), **settings)
    # Where accents stay, the slow one composes letters and accents first; so did neither BERT's own nor a fast one.
    texts = [text for text in TEXTS if unicodedata.is_normalized("NFC", text)]
    assert len(texts) >= len(TEXTS) - 2
    texts = texts if settings.get("strip_accents") is False or settings == {"do_lower_case": False} else TEXTS
    wanted = [slow(text, truncation=True, max_length=64)["input_ids"] for text in texts]
    assert ids_of(tokenizer, texts) == wanted
    assert tokenizer.is_fast and notes == ()


@pytest.mark.parametrize("rows", [0, 1, 50])
def test_added_tokens_of_old_folders(tmp_path, rows):
    folder = folder_of(tmp_path / "rows", VOCABULARY, rows=len(VOCABULARY) + rows)
    say(folder, "added_tokens.json", **{"<prod>": len(VOCABULARY)})
    if not rows:
        with pytest.raises(UnsafeModel, match=r"beyond the model's .* embedding rows: `<prod>`"):
            Encoder.load(folder)
        return
    encoder = Encoder.load(folder)
    (row,) = encoder.tokenize(["the <prod>"])
    assert len(VOCABULARY) in row["input_ids"] and encoder.predict([row])
    assert encoder.shape.vocab_size == len(VOCABULARY) + rows, "a padded vocabulary stays as it is"


@pytest.mark.parametrize("spaced", [False, True])
def test_merges_and_a_vocabulary_alone(tmp_path, spaced):
    """As the first RoBERTas had them; `add_prefix_space` of old settings counts."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=spaced)
    trainer = trainers.BpeTrainer(
        special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        vocab_size=400,
        show_progress=False,
    )
    backend.train_from_iterator(TEXTS, trainer)
    backend.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=spaced)
    backend.model.save(str(tmp_path))
    say(tmp_path, "config.json", model_type="roberta")
    say(tmp_path, max_len=64, **({"add_prefix_space": True} if spaced else {}))
    tokenizer, ids, notes = read(tmp_path)
    assert [row[:60] for row in ids] == [backend.encode(text).ids[:60] for text in TEXTS] and notes == ()
    pair = tokenizer("the film", "a book")["input_ids"]
    assert pair == backend.encode("the film", "a book").ids and pair.count(2) == 3


@pytest.mark.parametrize("settings", [{"do_basic_tokenize": False}, {"never_split": ["U.S."]}])
def test_settings_that_a_fast_tokenizer_does_not_have(folder, settings):
    say(folder, **settings)
    assert next(iter(settings)) in refusal(folder).what


@pytest.mark.parametrize(
    ("settings", "files", "lacks"),
    [
        ({"tokenizer_class": "RobertaTokenizer"}, ["vocab.txt"], "`merges.txt`, `vocab.json`"),
        ({}, ["vocab.json", "merges.txt"], "`vocab.txt`"),
    ],
)
def test_a_class_that_does_not_read_the_folders_files(folder, settings, files, lacks):
    """Its vocabulary would be five special tokens."""
    (folder / "vocab.txt").unlink()
    for name in files:
        text = json.dumps({token: i for i, token in enumerate(VOCABULARY)}) if name.endswith(".json") else "#version\n"
        (folder / name).write_text(text)
    say(folder, **settings)
    found = refusal(folder)
    assert f"the folder lacks {lacks}" in found.what and "tokenizer_class" in found.hint


def test_a_tokenizer_in_python_serves_where_places_of_tokens_do_not_matter(folder):
    say(folder, tokenizer_class="BertJapaneseTokenizer", word_tokenizer_type="basic")
    tokenizer, ids, notes = read(folder)
    assert "a slow one" in notes[0] and ids[0][0] == VOCABULARY.index("[CLS]")
    words = Split(("the film",), words=(("the", "film"),))
    for task in ("token-classification", "question-answering"):
        with pytest.raises(UserError, match="does not tell where its tokens are") as caught:
            encode(task, tokenizer, words, 16, (), "here")
        assert caught.value.hint


# SentencePiece


def test_a_sentencepiece_model_alone_needs_its_library(folder, monkeypatch):
    monkeypatch.setattr(tokenizer_files.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependency) as caught:
        refuse_unconvertible(folder, ["spiece.model"])
    assert "pip install sentencepiece" in caught.value.hint
    refuse_unconvertible(folder, ["tokenizer.json", "spiece.model"])


def proto(model_type=1, byte_fallback=False, add_dummy_prefix=True, pieces=("▁the", "film")):
    return SimpleNamespace(
        trainer_spec=SimpleNamespace(model_type=model_type, byte_fallback=byte_fallback),
        normalizer_spec=SimpleNamespace(add_dummy_prefix=add_dummy_prefix),
        pieces=[SimpleNamespace(piece=piece) for piece in pieces],
    )


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({}, None),
        ({"model_type": 2}, "not those of a Unigram model"),
        ({"byte_fallback": True}, "unknown characters as bytes"),
        ({"add_dummy_prefix": False}, "no space before a text"),
        ({"pieces": ["▁the", "▁है", "ा"]}, "`▁है`, `ा`"),
        ({"pieces": ["▁the", "é", "\u0301"]}, None),
    ],
)
def test_sentencepiece_models_that_a_class_reads_otherwise(given, word):
    backend = Tokenizer(models.Unigram([("<unk>", 0.0), ("▁the", -1.0)], unk_id=0))
    backend.normalizer = normalizers.Sequence([normalizers.NFKD(), normalizers.StripAccents()])
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=backend)
    if word is None:
        return refuse_pieces(proto(**given), tokenizer, "here")
    with pytest.raises(UnsafeModel, match=word) as caught:
        refuse_pieces(proto(**given), tokenizer, "here")
    assert caught.value.hint


# tokenizer.json


@pytest.fixture
def fast(folder):
    """The same model with a tokenizer.json, too."""
    transformers.BertTokenizer.from_pretrained(folder).save_pretrained(folder)
    (folder / "tokenizer_config.json").unlink()
    return folder


def change(folder, step, value):
    backend = Tokenizer.from_file(str(folder / "tokenizer.json"))
    setattr(backend, step, value)
    backend.save(str(folder / "tokenizer.json"))


@pytest.mark.parametrize(
    ("step", "value"),
    [
        ("normalizer", normalizers.Sequence([normalizers.NFKC(), normalizers.BertNormalizer()])),
        ("normalizer", normalizers.Replace(Regex("[0-9]"), "0")),
        ("pre_tokenizer", pre_tokenizers.WhitespaceSplit()),
    ],
)
def test_steps_of_tokenizer_json_that_the_class_would_leave_out(fast, step, value):
    assert read(fast)[2] == ()
    change(fast, step, value)
    wanted = [Tokenizer.from_file(str(fast / "tokenizer.json")).encode(text).ids for text in TEXTS]
    tokenizer, ids, (note,) = read(fast)
    assert "`BertTokenizer` of transformers 5 builds its steps anew" in note
    assert [row[:8] for row in ids] == [row[:8] for row in wanted]
    assert (tokenizer.pad_token_id, tokenizer.mask_token) == (0, "[MASK]")
    assert tokenizer("a", "a")["token_type_ids"] == [0, 0, 0, 1, 1], "the class's settings hold"
    tokenizer.save_pretrained(fast)
    assert read(fast)[1:] == (ids, ()), "and what is saved says it to everyone"


def test_flags_and_steps_that_both_differ(fast):
    change(fast, "normalizer", normalizers.BertNormalizer(lowercase=False))
    change(fast, "pre_tokenizer", pre_tokenizers.WhitespaceSplit())
    found = refusal(fast)
    assert "lowercase=False" in found.what and "PreTrainedTokenizerFast" in found.hint


SPECIAL_OF_UNIGRAM = {"cls_token": "<s>", "pad_token": "<pad>", "sep_token": "</s>", "unk_token": "<unk>"}


@pytest.mark.parametrize(
    ("family", "named"), [("bert", None), ("bert", "BertTokenizer"), ("roberta", "RobertaTokenizer"), ("roberta", None)]
)
def test_a_model_of_another_kind_than_the_class_builds(family, named, tmp_path):
    """Multilingual sentence encoders were published so: to their family's class every word is unknown."""
    pieces = ["▁" + word for word in WORDS] + LETTERS
    vocabulary = [(token, 0.0) for token in SPECIAL_OF_UNIGRAM.values()]
    vocabulary += [(piece, -1.0 - at / 100) for at, piece in enumerate(dict.fromkeys(pieces))]
    backend = Tokenizer(models.Unigram(vocabulary, unk_id=3))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    backend.save(str(tmp_path / "tokenizer.json"))
    say(tmp_path, "config.json", model_type=family)
    say(tmp_path, **SPECIAL_OF_UNIGRAM | ({"tokenizer_class": named} if named else {}))
    tokenizer, ids, (note,) = read(tmp_path)
    assert "as of no class" in note and tokenizer.pad_token_id == 1
    assert [row[:8] for row in ids] == [backend.encode(text).ids[:8] for text in TEXTS]
    for one in (tokenizer, (artifact := Artifact(tmp_path, None)).tokenizer):
        assert one("the film")["input_ids"] == [0, 4 + WORDS.index("the"), 4 + WORDS.index("film"), 2]
    assert artifact.notes == (note,), "and so is the tokenizer beside a file for an engine"


def test_flags_that_transformers_takes_from_the_settings(fast):
    """So did transformers 4: tokenizer.json alone would be read in another way than the model ever was."""
    before = read(fast)[1]
    change(fast, "normalizer", normalizers.BertNormalizer(lowercase=False))
    _, ids, notes = read(fast)
    assert ids == before
    assert "lowercase=False" in notes[0] and "as transformers reads them" in notes[0]


# What pads and masks


def test_a_vocabulary_without_a_token_that_pads(tmp_path):
    vocabulary = VOCABULARY[1:]
    folder = folder_of(tmp_path / "m", vocabulary)
    encoder = Encoder.load(folder)
    assert encoder.tokenizer.pad_token == "[UNK]", "the model's own `pad_token_id`, 0"
    assert "`[PAD]` have no rows" in encoder.notes[0] and "`[UNK]` does" in encoder.notes[1]
    alone = [encoder.predict(encoder.tokenize([text]))[0]["logits"] for text in ("the film", "it is a good film")]
    (tmp_path / "out").mkdir()
    encoder.save(tmp_path / "out")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    batch = tokenizer(["the film", "it is a good film"], padding=True, return_tensors="pt")
    model = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "out").eval()
    logits = model(**batch).logits.detach().numpy()
    assert all(abs(a - b).max() < 1e-5 for a, b in zip(alone, logits, strict=True)), "and so does what was written"
    assert ids_of(tokenizer, TEXTS) == ids_of(encoder.tokenizer, TEXTS)


def test_a_vocabulary_without_a_mask(tmp_path):
    vocabulary = [token for token in VOCABULARY if token != "[MASK]"]
    encoder = Encoder.load(folder_of(tmp_path / "m", vocabulary))
    assert "`[MASK]` have no rows" in encoder.notes[0] and encoder.tokenizer.mask_token is None
    assert max(encoder.tokenize(["the [MASK] was"])[0]["input_ids"]) < len(vocabulary)
    with pytest.raises(UnsafeModel, match=r"beyond the model's .* `\[MASK\]`"):
        Encoder.load(folder_of(tmp_path / "mlm", vocabulary, "mlm"))


def test_a_tokenizer_that_names_no_padding(tmp_path):
    folder = tmp_path / "m"
    folder.mkdir()
    tiny_encoder("roberta").save(folder)
    before = Encoder.load(folder)
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != "pad_token"}))
    (folder / "special_tokens_map.json").unlink()
    backend = Tokenizer.from_file(str(folder / "tokenizer.json"))
    backend.no_padding()
    backend.save(str(folder / "tokenizer.json"))
    encoder = Encoder.load(folder)
    assert "`</s>` does" in encoder.notes[0]
    texts = ["the film", "it is a good film"]
    for mine, theirs in zip(
        before.predict(before.tokenize(texts)), encoder.predict(encoder.tokenize(texts)), strict=True
    ):
        assert abs(mine["logits"] - theirs["logits"]).max() < 1e-6
    say(folder, **json.loads(path.read_text()) | {"padding_side": "left"})
    assert Encoder.load(folder).tokenizer.pad_token is None, "positions would be counted through it"


# Token types


def pair_logits(folder, tokenizer):
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.inference_mode():
        return model(**tokenizer("the film", "a book", return_tensors="pt")).logits[0].numpy()


@pytest.mark.parametrize("family", ["bert", "albert", "electra"])
@pytest.mark.parametrize("said", [None, ["input_ids", "attention_mask"]])
def test_types_that_only_the_class_of_transformers_5_leaves_out(family, said, tmp_path):
    (tmp_path / "m").mkdir()
    tiny_encoder(family).save(tmp_path / "m")
    with_types = pair_logits(tmp_path / "m", transformers.AutoTokenizer.from_pretrained(tmp_path / "m"))
    path = tmp_path / "m" / "tokenizer_config.json"
    config = json.loads(path.read_text()) | {"model_input_names": said}
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))
    stock = transformers.AutoTokenizer.from_pretrained(tmp_path / "m")
    assert "token_type_ids" not in stock("the film", "a book")
    wanted = with_types if said is None else pair_logits(tmp_path / "m", stock)
    assert not np.allclose(with_types, pair_logits(tmp_path / "m", stock), atol=1e-4), "types matter"
    encoder = Encoder.load(tmp_path / "m")
    assert np.allclose(encoder.predict(encoder.tokenize(["the film"], ["a book"]))[0]["logits"], wanted, atol=1e-5)
    assert ["returns no token types" in note for note in encoder.notes] == ([True] if said is None else [])
    (tmp_path / "out").mkdir()
    encoder.save(tmp_path / "out")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert np.allclose(pair_logits(tmp_path / "out", tokenizer), wanted, atol=1e-5), "and so does what was written"
    assert Encoder.load(tmp_path / "out").notes == ()


def test_one_type_and_a_class_that_gives_two(tmp_path):
    """A RoBERTa with BERT's tokenizer: what is saved returns no types, though its class does."""
    (tmp_path / "m").mkdir()
    tiny_encoder("roberta", vocab_size=len(VOCABULARY), type_vocab_size=1).save(tmp_path / "m")
    for path in (tmp_path / "m").glob("*token*"):
        path.unlink()
    (tmp_path / "m" / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    say(tmp_path / "m", tokenizer_class="BertTokenizer")
    encoder = Encoder.load(tmp_path / "m")
    mine = encoder.predict(encoder.tokenize(["the film"], ["a book"]))[0]["logits"]
    (tmp_path / "out").mkdir()
    encoder.save(tmp_path / "out")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert isinstance(tokenizer, transformers.BertTokenizer)
    assert np.allclose(pair_logits(tmp_path / "out", tokenizer), mine, atol=1e-5)


@pytest.mark.parametrize("name", [None, "BertTokenizer"])
def test_a_pair_that_the_library_gives_up_on(name, tmp_path):
    """It panics, which is no `Exception`, where a template names a token that it does not define."""
    tiny_encoder().save(tmp_path)
    path = tmp_path / "tokenizer.json"
    about = json.loads(path.read_text())
    about["post_processor"]["pair"][0] = {"SpecialToken": {"id": "nowhere", "type_id": 0}}
    path.write_text(json.dumps(about))
    if name is not None:
        say(tmp_path, tokenizer_class=name)
    with pytest.raises(UnsafeModel) as caught:
        Encoder.load(tmp_path)
    assert caught.value.where and caught.value.hint
