"""What was read is told in the first lines of a run: rows, columns, labels, what was left out and why."""

import pytest

from bertshrink.data.labels.shapes import OneHot
from bertshrink.data.load import load
from bertshrink.data.settings import DataSettings
from bertshrink.data.summary import account
from bertshrink.data.texts import Split, TextDataset


def lines(texts, task="classification"):
    return dict(line.split(": ", 1) for line in account(texts, task))


def test_a_table_row_by_row(tmp_path):
    rows = [
        ("pos", "a b c d 0", 7),
        ("neg", "e f g h 1", 8),
        ("", "i j k l 2", 9),
        ("pos", " ", 9),
        ("pos", "a b c d 0", 7),
    ]
    table = "label\tid\ttext\tnote\n" + "".join(f"{label}\t{at}\t{text}\t\n" for label, text, at in rows)
    for name in ("train", "dev"):
        (tmp_path / f"{name}.tsv").write_text(table)
    found = lines(load(DataSettings(path=str(tmp_path))))
    assert found["data"] == "train 4, dev 4 rows; evaluated on dev"
    assert found["columns"] == "text `text`, label `label`; not read: `id` (ids), `note` (empty)"
    assert found["labels"] == "train: pos 2, neg 1, 1 rows without a label; dev: pos 2, neg 1, 1 rows without a label"
    assert (
        "2 rows without text" in found["left out"]
        and "none of 1 training row that repeat another one" in found["left out"]
    )
    few = lines(load(DataSettings(path=str(tmp_path), max_train=1)))
    assert "3 rows by `max_train` or `max_dev`" in few["left out"]


@pytest.mark.parametrize(
    ("labels", "names", "task", "expected"),
    [
        ((0.5, 3.0, None), (), "regression", "scores from 0.5 to 3, 1 rows without a label"),
        ((1, 0, 1), ("no", "yes"), "classification", "yes 2, no 1"),
        (
            (OneHot((1, 0, 0)), OneHot((1, 1, 0)), None),
            ("a", "b", "c"),
            "multi-label",
            "a 2, b 1 (1 of 3 classes in no row)",
        ),
        ((("x", "y"), ("x",), ()), (), "multi-label", "x 2, y 1"),
        (((("it", 0),), (), None), (), "question-answering", "2 questions, 1 of them without an answer, 1 rows"),
        (tuple(range(20)), (), "classification", ", and 12 more"),
    ],
)
def test_labels_of_every_kind(labels, names, task, expected):
    side = Split(tuple(f"t{i}" for i in range(len(labels))), labels=labels, label_names=names)
    assert expected in lines(TextDataset("d", side, side), task)["labels"]


def test_what_is_judged_without_labels():
    plain, labelled = Split(("a", "b")), Split(("c", "d"), labels=("x", "y"))
    assert lines(TextDataset("d", plain, plain))["labels"].startswith("unlabelled: quality is agreement")
    assert "unlabelled where models are evaluated" in lines(TextDataset("d", labelled, plain))["labels"]
    assert "labels" not in lines(TextDataset("d", plain, plain), "embedding")
