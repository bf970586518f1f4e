"""Every shape of label from every format it comes in, and which side is used for what."""

import json

import datasets
import pytest

from bertshrink.data import hub_datasets
from bertshrink.data.formats.conll import to_iob2
from bertshrink.data.labels.checks import guess_data_task
from bertshrink.data.load import load
from bertshrink.data.settings import DataSettings
from bertshrink.data.texts import Split, TextDataset
from bertshrink.errors import UserError


@pytest.fixture(autouse=True)
def _no_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def write(folder, **files):
    """Files by name, `__` for the dot; what is not a string is written as JSON."""
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content)
        (folder / name.replace("__", ".")).write_text(text)
    return str(folder)


def read(folder, **files):
    return load(DataSettings(path=write(folder, **files)))


# Words with tags

TAGGED = "-DOCSTART- X O\n\nAnna NN B-PER\nSmith NN I-PER\nsaw VB O\nUlm NN B-LOC\n\n\nshe VB O\n\n"


@pytest.mark.parametrize("name", ["train__conll", "train__iob", "train__conll__txt", "train__bio"])
def test_words_with_tags(tmp_path, name):
    found = read(tmp_path, **{name: TAGGED, name.replace("train", "dev"): "I O\n"})
    assert found.train.words == (("Anna", "Smith", "saw", "Ulm"), ("she",))
    assert found.train.texts == ("Anna Smith saw Ulm", "she")
    assert found.train.labels == (("B-PER", "I-PER", "O", "B-LOC"), ("O",))
    assert guess_data_task(found.train) == "token-classification"
    assert found.train.take([1]).words == (("she",),)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("I-A I-A O I-A", "B-A I-A O B-A"),
        ("I-A B-A I-A", "B-A B-A I-A"),
        ("I-A I-B I-B", "B-A B-B I-B"),
        ("B-A I-A O", "B-A I-A O"),
        ("NN VB", "NN VB"),
    ],
)
def test_tags_of_the_older_scheme(old, new):
    assert to_iob2(old.split()) == tuple(new.split())
    assert to_iob2(new.split()) == tuple(new.split()), "a second time changes nothing"


def test_a_word_without_a_tag_is_named_by_its_line(tmp_path):
    with pytest.raises(UserError, match="line 3 has the word `lonely` and no tag") as caught:
        read(tmp_path, train__conll="a O\n\nlonely\n", dev__conll="b O\n")
    assert caught.value.where.endswith("train.conll:3")


def test_one_file_is_cut_by_hash_the_same_way_every_time(tmp_path):
    rows = [f"word{i} O\n\n" for i in range(300)]
    one = read(tmp_path / "a", all__conll="".join(rows))
    two = read(tmp_path / "b", all__conll="".join(rows[::-1]))
    assert set(one.dev.texts) == set(two.dev.texts)
    assert not set(one.dev.texts) & set(one.train.texts)
    assert 10 < len(one.dev) < 60
    train, choose = one.choosing()
    assert 10 < len(choose) < 60 and len(train) + len(choose) == len(one.train)
    assert not set(choose.texts) & set(train.texts)


def test_numbered_tags_of_a_hub_data_set_by_their_names(monkeypatch):
    tags = datasets.Sequence(datasets.ClassLabel(names=["O", "B-PER", "I-PER"]))
    features = datasets.Features(tokens=datasets.Sequence(datasets.Value("string")), ner_tags=tags)
    rows = datasets.Dataset.from_dict({"tokens": [["Al", "B"], ["x"], []], "ner_tags": [[1, 2], [0], []]}, features)
    found = hub(monkeypatch, train=rows, validation=rows)
    assert found.train.words == (("Al", "B"), ("x",))
    assert found.train.labels == (("B-PER", "I-PER"), ("O",))


def test_as_many_tags_as_words(tmp_path):
    with pytest.raises(UserError, match="row 2 has 1 words and 2 tags"):
        rows = [{"tokens": ["a"], "tags": ["O"]}, {"tokens": ["a"], "tags": ["O", "O"]}]
        read(tmp_path, train__json=rows, dev__json=rows)


# Questions and answers


def squad(**question):
    asked = {"id": "1", "question": "who?", "answers": [{"text": "Ann", "answer_start": 4}]} | question
    return {"data": [{"title": "t", "paragraphs": [{"context": "It: Ann did", "qas": [asked]}]}]}


def test_questions_and_answers(tmp_path):
    none = squad(is_impossible=True, answers=[], plausible_answers=[{"text": "It", "answer_start": 0}])
    found = read(tmp_path, train_subset__json=squad(), dev__json=none)
    assert (found.train.texts, found.train.pairs) == (("who?",), ("It: Ann did",))
    assert (found.train.labels, found.dev.labels) == (((("Ann", 4),),), ((),))
    assert guess_data_task(found.train) == "question-answering"


def test_a_hub_data_set_of_questions_is_the_same(tmp_path, monkeypatch):
    answers = {"text": ["Ann"], "answer_start": [4]}
    rows = datasets.Dataset.from_list([{"id": "1", "context": "It: Ann did", "question": "who?", "answers": answers}])
    local = read(tmp_path, train__json=squad(), dev__json=squad())
    assert hub(monkeypatch, train=rows, validation=rows).train == local.train


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (squad(answers=[{"text": "Ann", "answer_start": 3}]), "question 1: the answer `Ann` does not start"),
        (squad(answers=[{"text": "Ann"}]), "'answer_start' is missing"),
        ({"data": [{"title": "t"}]}, "'paragraphs' is missing"),
    ],
)
def test_answers_that_are_not_there(tmp_path, document, message):
    with pytest.raises(UserError, match=message) as caught:
        read(tmp_path, train__json=document, dev__json=squad())
    assert "train.json" in caught.value.where and caught.value.hint


# JSON by sides, label lists, scores


def test_sides_by_name_in_one_file(tmp_path):
    sides = {"train": [["a", "x"], ["b", "y"]], "val": [["c", "x"]], "test": [["d", "y"]], "oos_val": [["e", "oos"]]}
    found = read(tmp_path, data_full__json=sides, domains__json={"banking": ["x", "y"]})
    assert (found.train.texts, found.train.labels) == (("a", "b"), ("x", "y"))
    assert (found.dev.texts, found.test.texts) == (("c",), ("d",))
    assert found.notes == ("`data_full.json` has further parts, which are not read: oos_val",)


def test_several_labels_a_row(tmp_path):
    rows = [{"text": "a", "labels": ["x", "y"]}, {"text": "b", "labels": []}, {"text": "c", "labels": None}]
    found = read(tmp_path, train__json=rows, dev__json=rows)
    assert found.train.labels == (("x", "y"), (), None)
    assert guess_data_task(found.train) == "multi-label"


def test_scores_are_numbers_even_when_whole(tmp_path):
    header = "sentence1\tsentence2\tscore\n"
    found = read(tmp_path, train__tsv=header + "a\tb\t5\nc\td\t0\n", dev__tsv=header + "a\tc\t2.5\n")
    assert found.train.labels == (5.0, 0.0) and isinstance(found.train.labels[0], float)
    assert guess_data_task(found.train) == "regression"
    assert found.train.is_scored


def test_an_empty_label_is_none(tmp_path):
    found = read(tmp_path, train__csv="text,label\na,x\nb,\nc,y\n", dev__csv="text,label\na,\n")
    assert (found.train.labels, found.dev.labels) == (("x", None, "y"), None)


# Sides


@pytest.mark.parametrize("hidden", ["sentence\tlabel\nz\t-1\n", "sentence\nz\n"])
def test_a_test_side_without_labels_judges_nothing(tmp_path, hidden):
    side = "sentence\tlabel\na\t0\nb\t1\n"
    found = read(tmp_path, train__tsv=side, dev__tsv="sentence\tlabel\nc\t0\n", test__tsv=hidden)
    assert (found.test, found.judged_name) == (None, "dev")
    assert found.notes == ("the 1 texts of the test split have no labels: the split is not used",)


def test_texts_without_labels_at_all_keep_their_test_side(tmp_path):
    found = read(tmp_path, train__txt="a\n", dev__txt="b\n", test__txt="c\n")
    assert found.judged.texts == ("c",)


def test_train_and_test_alone_choose_from_train(tmp_path):
    rows = [[f"text {i}", i % 2] for i in range(200)]
    found = read(tmp_path, data__json={"train": rows, "test": [["z", 0]]})
    assert (found.judged.texts, found.judged_name, len(found.train)) == (("z",), "test", 200)
    train, choose = found.choosing()
    assert "z" not in choose.texts and len(train) + len(choose) == 200 and len(choose) > 5


def test_unlabelled_texts_join_train_and_are_told(tmp_path):
    (tmp_path / "more.txt").write_text("u\nv\n")
    folder = write(tmp_path / "d", train__csv="text,label\na,x\n", dev__csv="text,label\nb,x\n")
    found = load(DataSettings(path=folder, unlabelled=str(tmp_path / "more.txt")))
    assert sorted(found.train.texts) == ["a", "u", "v"]
    assert dict(zip(found.train.texts, found.train.labels, strict=True)) == {"a": "x", "u": None, "v": None}
    assert "2 texts without labels join" in found.notes[0]
    assert found.dev.texts == ("b",)


def test_rows_without_a_label_choose_nothing():
    train = Split(tuple(f"t{i}" for i in range(300)), labels=tuple(i % 7 if i % 2 else None for i in range(300)))
    learn, choose = TextDataset("d", train, Split(("z",))).choosing()
    assert len(choose) > 5 and None not in choose.labels
    assert sorted((*learn.texts, *choose.texts)) == sorted(train.texts)
    rows = dict(zip((*learn.texts, *choose.texts), (*learn.labels, *choose.labels), strict=True))
    assert rows == dict(zip(train.texts, train.labels, strict=True))


def test_texts_beside_tagged_words_fall_into_words_at_blanks():
    tagged = Split(("a b",), words=(("a", "b"),), labels=(("O", "B-X"),))
    found = tagged.with_unlabelled(Split(("c  d e", "f")))
    assert found.texts == ("a b", "c d e", "f") and found.words == (("a", "b"), ("c", "d", "e"), ("f",))
    assert found.labels == (("O", "B-X"), None, None)
    assert tagged.with_unlabelled(Split(("x, y",), words=(("x,", "y"),))).words[1] == ("x,", "y")


def test_a_fixed_choice_of_unlabelled_texts(tmp_path):
    (tmp_path / "more.txt").write_text("\n".join(f"u{i}" for i in range(30)))
    folder = write(tmp_path / "d", train__csv="text,label\na,x\n", dev__csv="text,label\nb,x\n")
    settings = DataSettings(path=folder, unlabelled=str(tmp_path / "more.txt"), max_unlabelled=4)
    first, second = (load(settings).train.texts for _ in range(2))
    assert first == second and len(first) == 5 and first[0] == "a"


def test_pairs_and_single_texts_do_not_mix():
    with pytest.raises(UserError, match="differ in kind"):
        Split(("a",), ("b",)).with_unlabelled(Split(("c",)))


def test_a_file_that_changes_is_read_again(tmp_path):
    assert read(tmp_path, train__txt="a\n", dev__txt="b\n").train.texts == ("a",)
    assert read(tmp_path, train__txt="longer\n").train.texts == ("longer",)


def hub(monkeypatch, **sides):
    monkeypatch.setattr(hub_datasets, "hub_is_reachable", lambda: True)
    monkeypatch.setattr(datasets, "load_dataset", lambda *a, **k: datasets.DatasetDict(sides))
    return load(DataSettings(path="some/data"))
