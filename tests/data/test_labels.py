"""Labels: what they are, told from all rows; and which class of a model each one is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertshrink.data.columns.to_split import split_of
from bertshrink.data.labels.checks import check_texts, guess_data_task
from bertshrink.data.labels.kinds import settle
from bertshrink.data.labels.labels import labels_of, map_labels, match_labels
from bertshrink.data.labels.shapes import OneHot, classes_of
from bertshrink.data.load import load
from bertshrink.data.settings import DataSettings
from bertshrink.data.tables.table import Table
from bertshrink.data.texts import Split, TextDataset
from bertshrink.errors import UserError


def side(labels, name="label", pairs=False, start=0):
    texts = [f"some words number {start + i}" for i in range(len(labels))]
    columns = {"text": texts, name: labels}
    if pairs:
        columns = {"sentence1": texts, "sentence2": texts[::-1], name: labels}
    return split_of(Table("d.csv", columns), DataSettings(label=name))


def settled(*labels, task="auto", name="label", pairs=False):
    names = ("train", "dev", "test")
    sides = {names[i]: side(own, name, pairs, 100 * i) for i, own in enumerate(labels)}
    return [split.labels for split in settle(sides, task).values()]


def texts_of(*labels, task="auto", label_names=()):
    from dataclasses import replace

    sides = settle({str(i): side(own, start=100 * i) for i, own in enumerate(labels)}, task)
    return TextDataset("d", *(replace(split, label_names=label_names) for split in sides.values()))


# What labels are


@pytest.mark.parametrize(
    ("cells", "task", "expected"),
    [
        (["01", "1.10", "1.1", "NA", "null", "True"], "auto", ("01", "1.10", "1.1", "NA", "null", "True")),
        (["0.0", "1.0", ""], "classification", ("0.0", "1.0", None)),
        ([0.0, 1.0, None], "auto", (0, 1, None)),
        ([True, False], "auto", (True, False)),
        (["1", "2"], "regression", (1.0, 2.0)),
        ([1, 2.5, None], "auto", (1.0, 2.5, None)),
        ([1, 2.0], "classification", (1, 2)),
        (["0.5", "1.5"], "auto", ("0.5", "1.5")),
    ],
)
def test_single_labels(cells, task, expected):
    (found,) = settled(cells, task=task)
    assert found == expected
    assert list(map(type, found)) == list(map(type, expected))


@pytest.mark.parametrize("name", ["score", " Similarity "])
def test_a_column_of_scores_holds_numbers_for_tasks_that_read_them(name):
    assert settled(["5", "0"], ["2.5"], name=name) == [(5.0, 0.0), (2.5,)]
    assert settled(["5", "0"], name=name, task="classification") == [("5", "0")], "stars are classes to a classifier"
    assert settled(["good", "bad"], name=name) == [("good", "bad")], "words in it are classes"


def test_scores_of_a_sentence_encoder_are_told_from_all_sides():
    assert settled(["1", "0"], ["0.5"], task="embedding", pairs=True) == [(1.0, 0.0), (0.5,)]
    assert settled(["1", "0"], ["2"], task="embedding", pairs=True) == [("1", "0"), ("2",)], "classes"


@pytest.mark.parametrize(
    ("cells", "task", "name", "row"),
    [
        (["1", "x"], "regression", "label", 2),
        (["1"] * 11_000 + ["3,5"], "auto", "score", 11_001),
        (["3,5", "3,0"], "auto", "score", 1),
        (["1", "nan"], "regression", "label", 2),
        (["1", "1e999"], "regression", "label", 2),
        (["1", "\u0661"], "regression", "label", 2),
        ([1.5, float("inf")], "auto", "label", 2),
        ([0.5, "x"], "auto", "label", 2),
        ([True, 3], "auto", "label", 2),
        ([["a"], "b"], "auto", "label", 2),
        (["b", ["a"]], "auto", "label", 2),
        ([[0.5, 1.0], [1.0, 0.0]], "auto", "label", 1),
        ([[1.0, 1.0], [1.0, 0.0, 1.0]], "auto", "label", 2),
        ([[1, 2], [2, 2]], "auto", "label", 2),
        (["a", "b\ud83d"], "auto", "label", 2),
        ([["a"], ["b\ud83d"]], "auto", "label", 2),
    ],
)
def test_a_label_of_another_kind_is_refused_with_its_row(cells, task, name, row):
    with pytest.raises(UserError) as caught:
        settled(cells, task=task, name=name)
    assert caught.value.where == f"d.csv, row {row}" and caught.value.hint
    caught.value.what.encode()


@pytest.mark.parametrize("columns", [("a \ud83d", "b"), ("a", "b \ud83d")])
def test_half_characters_in_texts_are_refused_with_their_row(columns):
    table = Table("d.json", {"sentence1": ["x", columns[0]], "sentence2": ["y", columns[1]]})
    with pytest.raises(UserError, match="half of a surrogate pair") as caught:
        settle({"train": split_of(table, DataSettings())}, "auto")
    assert caught.value.where == "d.json, row 2"
    caught.value.what.encode()
    words = Table("d.json", {"tokens": [["a", columns[0]], [columns[1]]], "tags": [["O", "O"], ["O"]]})
    with pytest.raises(UserError, match="half of a surrogate pair"):
        settle({"train": split_of(words, DataSettings())}, "auto")


# Several labels a row

VECTORS = [[1, 0, 0], [0, 0, 0], [1, 1, 0]]


@pytest.mark.parametrize("kind", [int, float, bool])
def test_a_zero_or_one_for_each_class(kind):
    (found,) = settled([list(map(kind, row)) for row in VECTORS] + [None])
    assert found == ((1, 0, 0), (0, 0, 0), (1, 1, 0), None)
    assert all(isinstance(row, OneHot) for row in found[:3])
    assert match_labels("multi-label", found, ("x", "y", "z"), "d")[2:] == [(1.0, 1.0, 0.0), None]


def test_numbers_of_classes_are_told_from_vectors_by_all_rows():
    assert settled([[0, 1], [1]], [[0]]) == [((0, 1), (1,)), ((0,),)], "not all of one length"
    assert not any(isinstance(row, OneHot) for row in settled([[0, 1], [1, 2]])[0]), "2 is neither 0 nor 1"
    assert settled([[0, 0], [0, 1]]) == [(OneHot((0, 0)), OneHot((0, 1)))]
    assert all(isinstance(row, OneHot) for own in settled([[0, 1]], [[1, 0]]) for row in own)
    with pytest.raises(UserError, match="a list of one number"):
        settled([[0], [1]])
    assert settled([[0.0], [1.0]]) == [(OneHot((0,)), OneHot((1,)))]
    assert settled([["x", 1], ["y"]]) == [(("x", "1"), ("y",))]


def test_vectors_take_the_models_names_where_they_are_as_many():
    texts = texts_of(VECTORS, VECTORS)
    assert labels_of(texts, "multi-label") == ("LABEL_0", "LABEL_1", "LABEL_2")
    assert labels_of(texts, "multi-label", ("a", "b", "c")) == ("a", "b", "c")
    assert labels_of(texts, "multi-label", ("a", "b")) == ("LABEL_0", "LABEL_1", "LABEL_2")
    with pytest.raises(UserError, match=r"labelled with 3 numbers.*2 classes `a`, `b`"):
        match_labels("multi-label", texts.train.labels, ("a", "b"), "d")


def test_columns_of_classes_are_matched_by_their_names():
    values, names = (OneHot((1, 0, 0)), None), ("c", "A", "b")
    assert match_labels("multi-label", values, ("a", "b", "c"), "d", names) == [(0.0, 0.0, 1.0), None]
    assert match_labels("multi-label", values, ("LABEL_0", "LABEL_1", "LABEL_2"), "d", names)[0] == (1.0, 0.0, 0.0)
    with pytest.raises(UserError, match=r"`x` in the data|are not the model's classes"):
        match_labels("multi-label", values, ("a", "b", "x"), "d", names)


# Which class a label is

NAMES = st.lists(
    st.sampled_from(["a", "A", " a", "b", "B", "ß", "SS", "0", "1", "0.0", "1.0", "01", "True"]), max_size=6
)


@given(NAMES, NAMES)
def test_no_two_labels_become_one_class(values, labels):
    try:
        found = map_labels(values, labels, "d")
    except UserError:
        return
    classes = {}
    for value, at in zip(values, found, strict=True):
        assert classes.setdefault(at, value.strip()) == value.strip()
        label = labels[at]
        assert value.strip().casefold() == label.strip().casefold() or float(value) == at


@pytest.mark.parametrize(
    ("values", "labels", "expected"),
    [
        (["US", "us"], ("us", "US"), [1, 0]),
        (["0.0", "1.0"], ("neg", "pos"), [0, 1]),
        ([True, False], ("neg", "pos"), [1, 0]),
        ([True, False], ("True", "False"), [0, 1]),
        (["true"], ("False", "True"), [1]),
    ],
)
def test_labels_that_are_clear(values, labels, expected):
    assert map_labels(values, labels, "d") == expected


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        (["US", "us"], ("us", "other")),
        (["Us"], ("us", "US")),
        (["1", "1.0"], ("neg", "pos")),
        (["01", "10"], ("neg", "pos")),
        (["0.5", "1.0"], ("neg", "pos")),
        ([True, 1], ("neg", "pos")),
        (["a"], ("a", "a")),
    ],
)
def test_labels_that_are_not_clear(values, labels):
    with pytest.raises(UserError, match="do not match the teacher's"):
        map_labels(values, labels, "d")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["us", "US"], ("US", "us")),
        (["01", "10"], ("01", "10")),
        (["1.1", "1.10", "2.1"], ("1.1", "1.10", "2.1")),
        (["0.0", "1.0"], ("LABEL_0", "LABEL_1")),
        (["1.0", "2.0"], ("1.0", "2.0")),
        ([0, 1], ("LABEL_0", "LABEL_1")),
        ([True, False], ("False", "True")),
        (["NA", "null"], ("NA", "null")),
    ],
)
def test_a_new_heads_classes_are_the_datas(values, expected):
    texts = texts_of(values, values, task="classification")
    names = labels_of(texts, "classification")
    assert names == expected
    numbers = map_labels(texts.train.labels, names, "d")
    assert sorted(numbers) == list(range(len(expected))), "every class is reached"


def test_a_new_head_has_no_class_that_no_row_has():
    texts = texts_of([0, 2, 0], [2], label_names=("a", "b", "c"))
    assert labels_of(texts, "classification") == ("a", "c")
    assert map_labels(texts.train.labels, ("a", "c"), "d", ("a", "b", "c")) == [0, 1, 0]
    assert labels_of(texts, "classification", ("c", "b", "a")) == ("a", "b", "c"), "the model's own head has it"


# Which task they are for


def test_decimals_are_asked_about():
    with pytest.raises(UserError, match="scores or class names") as caught:
        guess_data_task(side(["0.5", "1", "2.25"]))
    assert "--task regression" in caught.value.hint and "--task classification" in caught.value.hint
    assert guess_data_task(side(["1.1", "1.10"])) == "classification", "one number in two ways: names"
    assert guess_data_task(side(["1", "2"])) == "classification"
    assert guess_data_task(side([1.5, 2.5])) == "regression"


# Rows that must stay in train


def rows_of(path, labels):
    path.write_text("text\tlabel\n" + "".join(f"text {i}\t{label}\n" for i, label in enumerate(labels)))
    return DataSettings(path=str(path))


def test_a_class_of_one_row_stays_in_train_whatever_the_draw(tmp_path):
    alone = [f"only{i}" for i in range(40)]
    for seed in (0, 1, 2):
        settings = rows_of(tmp_path / "a.tsv", [*alone, *(["x", "y"] * 80)]).model_copy(update={"split_seed": seed})
        found = load(settings)
        assert set(alone) <= set(found.train.labels) and set(found.dev.labels) == {"x", "y"}
        learn, choose = found.choosing()
        assert set(alone) <= set(learn.labels) and len(choose)


LABELS = st.one_of(st.sampled_from("abc"), st.tuples(st.sampled_from("abc"), st.sampled_from("abc")), st.none())


@given(st.lists(LABELS, min_size=1, max_size=40), st.floats(0.1, 0.5, allow_subnormal=False))
def test_every_class_stays_where_it_is_learnt(labels, share):
    split = Split(tuple(f"t{i}" for i in range(len(labels))), labels=tuple(labels))
    kept, drawn = split.parted(split.drawn(share))
    assert set().union(*map(classes_of, labels)) == set().union(*map(classes_of, kept.labels))
    turned = split.take(range(len(split))[::-1])
    assert set(turned.parted(turned.drawn(share))[1].texts) == set(drawn.texts), "wherever the rows are"


def test_another_seed_chooses_other_rows(tmp_path):
    settings = rows_of(tmp_path / "a.tsv", ["x", "y"] * 100)
    first, same, other = (load(settings.model_copy(update={"split_seed": seed})) for seed in (0, 0, 7))
    assert set(first.dev.texts) == set(same.dev.texts) != set(other.dev.texts)
    few = [load(settings.model_copy(update={"split_seed": seed, "max_train": 20})) for seed in (0, 7)]
    assert len({texts.fingerprint for texts in few}) == 2 and all(len(texts.train) == 20 for texts in few)
    both = DataSettings(train=settings.path, dev=settings.path)
    prints = {load(both.model_copy(update={"split_seed": seed})).fingerprint for seed in (0, 7)}
    assert len(prints) == 2, "what is chosen by is another part of train"


# What is expected and not there


def seen(task, labels=("a", "b"), **columns):
    rows = {name: list(cells) for name, cells in columns.items()}
    split = split_of(Table("d.csv", rows), DataSettings())
    check_texts(TextDataset("d", split, split), task, labels, needs_labels=False)


MOOD = {"text": [f"words in a row {i}" for i in range(9)], "mood": "abcabcaba", "when": "xyxyxyxyx"}


@pytest.mark.parametrize("task", ["classification", "multi-label", "regression"])
def test_labels_that_are_expected_and_not_seen_stop_the_run(task):
    with pytest.raises(UserError, match=r"has no labels, which .* `mood` .*, `when`") as caught:
        seen(task, **MOOD)
    assert "--label none" in caught.value.hint
    seen("embedding", **MOOD)
    seen(task, text=MOOD["text"], id=range(9))


def test_a_second_text_that_would_go_unread_stops_the_run():
    with pytest.raises(UserError, match="`title` also holds texts, but only `text`") as caught:
        seen("classification", text=MOOD["text"], title=MOOD["text"], label="abababbaa")
    assert "`--pair none`" in caught.value.hint and "--pair 'title'" in caught.value.hint
