"""Which column is what: by name, by what is left, as told; and what is asked for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertshrink.data.columns.guesses import LABELS, PAIRS, TEXTS, is_id, plain
from bertshrink.data.columns.to_split import split_of
from bertshrink.data.load import load
from bertshrink.data.settings import DataSettings
from bertshrink.data.tables.table import Table
from bertshrink.errors import UserError

WORDS = ["the", "film", "was", "good", "and", "we", "saw", "it", "with", "them", "on", "a", "long", "day"]
SENTENCES = [" ".join(WORDS[i % 7 : i % 7 + 4]) + f" number {i}" for i in range(24)]
CLASSES = ["pos" if i % 3 else "neg" for i in range(24)]


def columns(**found):
    return Table("some.csv", {name.replace("__", " "): list(cells) for name, cells in found.items()})


def table(*columns):
    return Table("some.csv", dict(columns))


def roles(found, **settings):
    split = split_of(found, DataSettings(**settings))
    return split.roles.text, split.roles.pair, split.roles.labels


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("write", [str, str.upper, str.capitalize, lambda name: f" {name} "])
def test_texts_are_known_by_name_in_any_case_and_with_blanks_around(name, write):
    found = table(("id", range(24)), (write(name), SENTENCES), (write("label"), CLASSES), ("year", ["2020"] * 24))
    assert roles(found) == (write(name), None, (write("label"),))


@pytest.mark.parametrize("pair", PAIRS)
def test_pairs_are_known_by_name(pair):
    first, second = pair
    found = table((second, SENTENCES[::-1]), ("idx", range(24)), (first, SENTENCES), ("Label", CLASSES))
    assert roles(found) == (first, second, ("Label",))


@pytest.mark.parametrize("name", LABELS)
def test_labels_are_known_by_name(name):
    found = table(("genre", CLASSES[::-1]), ("text", SENTENCES), (name, CLASSES), ("year", ["2020"] * 24))
    assert roles(found) == ("text", None, (name,))


PUBLISHED = {
    "QQP": ("id qid1 qid2 question1 question2 is_duplicate", "question1", "question2", "is_duplicate"),
    "MNLI": (
        "index promptID pairID genre sentence1_binary_parse sentence2_parse sentence1 sentence2 label1 gold_label",
        "sentence1",
        "sentence2",
        "gold_label",
    ),
    "STS-B": ("index genre old_index sentence1 sentence2 score", "sentence1", "sentence2", "score"),
    "QNLI": ("index question sentence label", "question", "sentence", "label"),
    "BoolQ": ("question passage idx label", "question", "passage", "label"),
    "MRPC": ("Quality #1_ID #2_ID #1_String #2_String", "#1_String", "#2_String", "Quality"),
    "SNLI": ("captionID gold_label pairID sentence1 sentence2", "sentence1", "sentence2", "gold_label"),
    "banking77": ("text category", "text", None, "category"),
    "tweets": ("id keyword text target", "text", None, "target"),
    "Sentiment140": ("target ids date flag user text", "text", None, "target"),
    "IMDB": ("review sentiment", "review", None, "sentiment"),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_data_sets_as_they_are_published(name):
    header, text, pair, label = PUBLISHED[name]

    def cells(column):
        if is_id(column):
            return list(range(24))
        return SENTENCES if column in (text, pair) or "parse" in column else CLASSES

    split = split_of(table(*((column, cells(column)) for column in header.split())), DataSettings())
    assert (split.roles.text, split.roles.pair, split.roles.labels) == (text, pair, (label,))
    assert split.roles.second is None
    assert split.labels == tuple(CLASSES)


def test_of_two_columns_the_one_with_sentences_is_the_text():
    assert roles(columns(v1=CLASSES, v2=SENTENCES)) == ("v2", None, ("v1",))
    assert roles(columns(v2=SENTENCES, v1=CLASSES, nr=range(24))) == ("v2", None, ("v1",)), "beside ids"
    assert roles(columns(v1=CLASSES, v2=SENTENCES, x=[""] * 24, y=[None] * 24)) == ("v2", None, ("v1",)), (
        "and empty ones"
    )


def test_what_is_left_beside_a_known_text_or_label():
    assert roles(columns(text=SENTENCES, mood=CLASSES)) == ("text", None, ("mood",))
    assert roles(columns(premise=SENTENCES, hypothesis=SENTENCES, verdict=CLASSES))[2] == ("verdict",)
    assert roles(columns(headline=[f"word {i}" for i in range(24)], topic=CLASSES)) == ("headline", None, ("topic",))


@pytest.mark.parametrize(
    "found",
    [
        columns(a=SENTENCES, b=SENTENCES),
        columns(a=CLASSES, b=CLASSES[::-1]),
        columns(a=range(24), b=range(24)),
        columns(a=SENTENCES, b=CLASSES, c=CLASSES[::-1]),
        columns(title=SENTENCES, body=SENTENCES, label=CLASSES),
        columns(a=[], b=[]),
    ],
)
def test_what_is_not_clear_is_asked_for_with_every_column(found):
    with pytest.raises(UserError, match="cannot tell which column holds the text") as caught:
        split_of(found, DataSettings())
    for name in found.columns:
        assert f"\n    {name}" in caught.value.what
    assert all(flag in caught.value.hint for flag in ("--text", "--pair", "--label", "none"))


def test_two_columns_of_labels_must_say_the_same():
    numbers = [int(name == "pos") for name in CLASSES]
    assert roles(columns(text=SENTENCES, label=numbers, label_text=CLASSES))[2] == ("label_text",)
    other = [*numbers[:-1], 1 - numbers[-1]]
    for odd in (other, [*numbers[:-1], None], [*numbers[:-1], 7]):
        with pytest.raises(UserError, match="`label_text` and `label` both look like labels"):
            split_of(columns(text=SENTENCES, label=odd, label_text=CLASSES), DataSettings())
    assert roles(columns(text=SENTENCES, label=other, label_text=CLASSES), label="label")[2] == ("label",)
    assert roles(columns(text=SENTENCES, label=other, label_text=[""] * 24))[2] == ("label",), (
        "an empty one says nothing"
    )


def test_columns_as_told():
    found = columns(title=SENTENCES, body=SENTENCES[::-1], a=CLASSES, b=CLASSES)
    assert roles(found, text="body", label="b") == ("body", None, ("b",))
    assert roles(found, text=" Body ", pair="TITLE", label="none") == ("body", "title", ())
    assert roles(columns(sentence1=SENTENCES, sentence2=SENTENCES, label=CLASSES), pair="none")[1] is None
    assert roles(columns(none=CLASSES, text=SENTENCES), label="none")[2] == ("none",), "a column of that very name"


@pytest.mark.parametrize("settings", [{"text": "x"}, {"pair": "x"}, {"text": "A"}])
def test_a_column_that_is_not_there_or_not_one(settings):
    with pytest.raises(UserError, match=r"there (is no|are several) column"):
        split_of(columns(text=SENTENCES, label=CLASSES, a=CLASSES, **{" a ": CLASSES}), DataSettings(**settings))


def test_a_second_column_of_texts_is_told_of():
    def second(found, **settings):
        return split_of(found, DataSettings(**settings)).roles.second

    assert second(columns(text=SENTENCES, title=SENTENCES[::-1], label=CLASSES)) == "title"
    assert second(columns(anchor=SENTENCES, positive=SENTENCES, negative=SENTENCES)) == "negative"
    assert second(columns(text=SENTENCES, passage=["short"] * 24, label=CLASSES)) == "passage", "by its name"
    assert second(columns(text=SENTENCES, title=SENTENCES, label=CLASSES), pair="none") is None
    assert second(columns(text=SENTENCES, title=SENTENCES, label=CLASSES), text="text") is None
    assert second(columns(text=SENTENCES, url=[f"https://x.y/{i}" for i in range(24)], label=CLASSES)) is None


def test_columns_that_may_be_labels_are_told_of():
    found = split_of(columns(text=SENTENCES, when=CLASSES, mood=CLASSES, id=range(24)), DataSettings()).roles
    assert (found.labels, found.maybe_labels) == ((), ("when", "mood"))
    told = split_of(columns(text=SENTENCES, when=CLASSES, mood=CLASSES), DataSettings(label="none")).roles
    assert (told.labels, told.maybe_labels) == ((), ())


CELLS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


@given(st.lists(st.tuples(CELLS, CELLS), max_size=30))
def test_cells_are_texts_and_labels_as_they_are_written_but_for_blanks_around(rows):
    found = Table("t", {"text": [text for text, _ in rows], "label": [label for _, label in rows]})
    kept = [(text.strip(), label.strip() or None) for text, label in rows if text.strip()]
    stripped = {}
    is_merged = any(stripped.setdefault(label.strip(), label) != label for _, label in rows if label.strip())
    if is_merged:
        with pytest.raises(UserError, match="differ only by surrounding spaces"):
            split_of(found, DataSettings())
        return
    split = split_of(found, DataSettings())
    labels = split.labels if split.labels is not None else (None,) * len(split)
    assert list(zip(split.texts, labels, strict=True)) == kept


@pytest.mark.parametrize(
    ("cell", "message"),
    [(["a"], "a list where a text"), ({"a": 1}, "an object where a text"), (b"a", "bytes where a text")],
)
def test_what_is_no_text_is_refused_with_its_row(cell, message):
    with pytest.raises(UserError, match=message) as caught:
        split_of(columns(text=["a b", cell], label=["x", "y"]), DataSettings())
    assert caught.value.where == "some.csv, row 2"


@pytest.mark.parametrize("cell", [{"a": 1}, b"a", [["x"]], [None], ["x", {}], [""]])
def test_what_is_no_label_is_refused_with_its_row(cell):
    with pytest.raises(UserError, match=r"not a label|where a text") as caught:
        split_of(columns(text=["a b", "c d"], label=["x", cell]), DataSettings())
    assert caught.value.where == "some.csv, row 2"


def test_labels_that_say_there_is_none():
    found = split_of(columns(premise=["a", "b"], hypothesis=["c", "d"], gold_label=["-", "neutral"]), DataSettings())
    assert (found.labels, found.roles.num_unjudged) == ((None, "neutral"), 1)
    minus = split_of(columns(text=["a", "b"], label=["-", "+"]), DataSettings())
    assert minus.labels == ("-", "+"), "elsewhere it is a class like any other"
    numbered = Table("t", {"text": ["a", "b"], "label": [-1, 1]}, {"label": ("no", "yes")})
    assert split_of(numbered, DataSettings()).labels == (None, 1)


def test_columns_of_a_class_each():
    found = columns(comment_text=SENTENCES[:3], toxic=["0", "1", ""], threat=["1.0", 0, ""], id="abc")
    split = split_of(found, DataSettings(label="toxic, threat"))
    assert (split.labels, split.label_names) == (((0, 1), (1, 0), None), ("toxic", "threat"))
    for odd, message in (("2", "neither 0 nor 1"), ("yes", "neither 0 nor 1"), ("", "neither 0 nor 1")):
        bad = columns(text=SENTENCES[:2], toxic=["0", odd], threat=["1", "0"])
        with pytest.raises(UserError, match=message) as caught:
            split_of(bad, DataSettings(label="toxic,threat"))
        assert caught.value.where.endswith("row 2")


@pytest.mark.parametrize("name", ["id", "idx", "pairID", "guid", "qid1", "#1 ID", "old_index", "user_id", "index", ""])
def test_ids_are_ids(name):
    assert is_id(name)


@pytest.mark.parametrize("name", ["text", "is_valid", "paid", "side", "label", "class_index", "video", "Id est"])
def test_words_that_end_alike_are_no_ids(name):
    assert not is_id(name)
    assert plain(f"  {name.upper()} ") == plain(name)


# All sides


def write(path, header, *rows):
    path.write_text("\n".join("\t".join(row) for row in (header, *rows)) + "\n")


def test_every_side_is_read_by_the_columns_of_the_training_side(tmp_path):
    rows = list(zip(SENTENCES, CLASSES, strict=True))
    write(tmp_path / "train.tsv", ("body", "mood"), *rows)
    write(tmp_path / "dev.tsv", ("body", "mood"), ("ok", "pos"), ("good", "neg"))
    found = load(DataSettings(path=str(tmp_path)))
    assert (found.dev.texts, found.dev.labels) == (("ok", "good"), ("pos", "neg"))


def test_a_test_side_may_lack_the_labels_that_are_named(tmp_path):
    rows = list(zip(SENTENCES, CLASSES, strict=True))
    write(tmp_path / "train.tsv", ("text", "mood"), *rows)
    write(tmp_path / "dev.tsv", ("text", "mood"), *rows[:4])
    write(tmp_path / "test.tsv", ("text", "id"), ("a b c", "1"))
    found = load(DataSettings(path=str(tmp_path), label="mood"))
    assert found.test is None and "have no labels" in " ".join(found.notes)
    write(tmp_path / "dev.tsv", ("text", "id"), ("a b c", "1"))
    with pytest.raises(UserError, match="there is no column `mood`"):
        load(DataSettings(path=str(tmp_path), label="mood"))


@pytest.mark.parametrize("setting", ["text", "pair", "label"])
def test_what_has_no_columns_takes_no_names_of_any(tmp_path, setting):
    (tmp_path / "a.txt").write_text("one\ntwo\nthree\n" * 20)
    with pytest.raises(UserError, match="column"):
        load(DataSettings(path=str(tmp_path / "a.txt"), **{setting: "x"}))


@pytest.mark.slow  # the texts are gathered anew each time
@pytest.mark.parametrize(
    "setting", ["text", *(pytest.param(name, marks=pytest.mark.matrix) for name in ("pair", "label"))]
)
def test_the_texts_of_pydoc_have_no_columns_to_name(setting):
    with pytest.raises(UserError, match="has no columns"):
        load(DataSettings(path="builtin:pydoc", **{setting: "x"}))
