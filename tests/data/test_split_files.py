"""Which files are which side: parts, folders one deep, what could be meant twice; paths are not patterns."""

import errno
import json
import os
from pathlib import Path

import datasets
import pyarrow
import pytest
from pyarrow import parquet

from bertshrink.data import hub_datasets
from bertshrink.data.readers import check_source, read_sides
from bertshrink.data.settings import DataSettings
from bertshrink.errors import OutputError, UserError
from bertshrink.recipe.recipe import other_data

SPARK = ["train.csv/part-0-x7.csv", "train.csv/part-1-x7.csv"]
HUB = ["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet", "data/test-00000-of-00001.parquet"]


def fill(folder, *names):
    """Files with one row each, that says the file's name."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".parquet":
            parquet.write_table(pyarrow.table({"text": [name]}), path)
        else:
            path.write_text(f'text,label\n"{name}",x\n')
    return str(folder)


def sides(path, **more):
    notes = []
    found = read_sides(DataSettings(path=path, **more), notes)
    return {side: sorted(split.texts) for side, split in found.items()}, notes


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["train.csv", "dev.csv"], {"train": ["train.csv"], "dev": ["dev.csv"]}),
        (["train.1.csv", "train.2.csv", "train.10.csv"], None),
        (["train.1.csv", "train.2.csv"], {"train": ["train.1.csv", "train.2.csv"]}),
        (["train_part1.csv", "train_part2.csv"], {"train": ["train_part1.csv", "train_part2.csv"]}),
        (["train/a.csv", "test/b.csv"], {"train": ["train/a.csv"], "test": ["test/b.csv"]}),
        (["train/part-0.csv", "train/part-1.csv"], {"train": ["train/part-0.csv", "train/part-1.csv"]}),
        (SPARK, {"train": SPARK}),
        (HUB, {"train": HUB[:2], "test": HUB[2:]}),
        (["data/all.csv"], {"train": ["data/all.csv"]}),
        (["part-0.csv", "part-1.csv"], {"train": ["part-0.csv", "part-1.csv"]}),
        (["testimonials.csv"], {"train": ["testimonials.csv"]}),
        (["data/train-00000-of-00002.parquet"], None),
        (["train-00001-of-00002.parquet"], None),
        (["train_a.csv", "train_b.csv", "dev.csv"], None),
        (["train.csv", "train.tsv", "dev.csv"], None),
        (["dev_matched.csv", "dev_mismatched.csv", "train.csv"], None),
        (["train.xlsx", "dev.csv"], None),
        (["cola/train.csv", "cola/dev.csv", "sst2/train.csv"], None),
        (["a.csv", "b.csv"], None),
    ],
)  # fmt: skip
def test_the_sides_of_a_folder(tmp_path, names, found):
    folder = fill(tmp_path / "d", *names)
    if found is not None:
        assert sides(folder)[0] == found
        check_source(folder, None)
        return
    for look in (sides, lambda path: check_source(path, None)):
        with pytest.raises(UserError) as caught:
            look(folder)
        assert caught.value.hint


def test_a_refusal_names_what_could_be_meant(tmp_path):
    for names, message in (
        (["train_a.csv", "train_b.csv"], "several files for the train split: `train_a.csv`, `train_b.csv`"),
        (["x/train.csv", "y/train.csv"], "holds several datasets: `x`, `y`"),
        (["train-00000-of-00003.csv", "train-00002-of-00003.csv"], "are incomplete: number 1 is missing"),
        (["a.csv", "b.csv"], "holds no train or dev file; it holds `a.csv`, `b.csv`"),
    ):
        folder = tmp_path / names[0].replace("/", "-")
        with pytest.raises(UserError, match=message):
            sides(fill(folder, *names))


def test_what_a_folder_holds_besides_is_told(tmp_path):
    folder = fill(tmp_path / "d", "train.csv", "dev.csv", "extra.csv", "old/train.csv", "README.txt")
    assert "left out of `d`, because their names match no split: extra.csv, old/" in sides(folder)[1]


def test_parts_have_the_same_columns(tmp_path):
    fill(tmp_path, "train.1.csv")
    (tmp_path / "train.2.csv").write_text("label,text\ny,second\n")
    found = read_sides(DataSettings(path=str(tmp_path)), [])["train"]
    assert (found.texts, found.labels) == (("train.1.csv", "second"), ("x", "y"))
    (tmp_path / "train.2.csv").write_text("label,texts\ny,second\n")
    with pytest.raises(UserError, match=r"train.1.csv` and .*train.2.csv` do not have the same columns"):
        sides(str(tmp_path))


def test_parts_of_questions_are_read_together_and_parts_of_tagged_words_refused(tmp_path):
    for i in range(2):
        asked = {"question": f"who {i}?", "answers": [{"text": "Ann", "answer_start": 0}]}
        article = {"title": "t", "paragraphs": [{"context": "Ann did", "qas": [asked]}]}
        (tmp_path / f"train.{i}.json").write_text(json.dumps({"data": [article]}))
    assert sides(str(tmp_path))[0] == {"train": ["who 0?", "who 1?"]}
    for i in range(2):
        (tmp_path / f"dev.{i}.conll").write_text("Ann B-PER\n")
    with pytest.raises(UserError, match="words with tags are read from one file"):
        sides(str(tmp_path))


@pytest.mark.parametrize("name", ["data[1]", "q?x", "a*b", "{x}", "train=1", "a,dev=b", "ö ü", "%20", "-o"])
def test_a_path_is_a_path(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    for folder in ("data1", "qax", "axb", name):
        fill(tmp_path / folder, "train.csv", "dev.csv")
        (tmp_path / folder / "train.csv").write_text(f'text,label\n"{folder}",x\n')
    expected = (name,)
    for given_path in (
        name,
        f"{name}/train.csv",
        f"train={name},dev=data1",
        f"train={name}/train.csv,dev=data1/dev.csv",
    ):
        found = read_sides(DataSettings(**other_data(given_path, None)), [])
        assert found["train"].texts == expected, given_path
    (tmp_path / name / "train.csv").rename(tmp_path / "absent")
    with pytest.raises(UserError):
        read_sides(DataSettings(path=f"{name}/train.csv"), [])


def test_pipes_folders_and_links_into_nothing_are_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "train.csv")
    (tmp_path / "dev.csv").symlink_to(tmp_path / "nothing")
    (tmp_path / "t.tsv").mkdir()
    for path, message in (
        (tmp_path / "train.csv", "is a pipe or a device"),
        (tmp_path, "the train split of .* is `train.csv`, which is not a file"),
        (tmp_path / "dev.csv", "there is no file"),
        (tmp_path / "t.tsv", "holds no train or dev file"),
        (Path("/dev/zero"), "pipe or a device|not a text file"),
    ):
        with pytest.raises(UserError, match=message):
            check_source(str(path), None)
        with pytest.raises(UserError):
            read_sides(DataSettings(train=str(path)), [])


def test_a_cache_of_hub_data_without_room_is_a_failure_to_write(monkeypatch):
    """A home that is full or cannot be written is not called a dataset that is not there."""
    for code in (errno.EACCES, errno.ENOSPC, errno.EROFS):

        def load_dataset(*where, code=code, **more):
            try:
                raise OSError(code, os.strerror(code), "/proc/1/.cache")
            except OSError as error:
                raise datasets.exceptions.DatasetGenerationError("it failed") from error

        monkeypatch.setattr(datasets, "load_dataset", load_dataset)
        monkeypatch.setattr(hub_datasets, "hub_is_reachable", lambda: True)
        with pytest.raises(OutputError, match=f"`/proc/1/.cache` cannot be written: {os.strerror(code)}") as caught:
            read_sides(DataSettings(path="some/data"), [])
        assert caught.value.exit_code == 7 and "HF_HOME" in caught.value.hint


def test_local_files_leave_nothing_behind(tmp_path, monkeypatch):
    def refuse(*arguments, **more):
        raise AssertionError("`datasets` was asked")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    monkeypatch.setattr(datasets.Dataset, "from_list", refuse)
    monkeypatch.setenv("HOME", "/proc/1")
    folder = tmp_path / "d"
    folder.mkdir()
    (folder / "train.csv").write_text("text,label\na,x\n")
    (folder / "dev.jsonl").write_text('{"text": "b", "label": "x"}\n')
    parquet.write_table(pyarrow.table({"text": ["c"], "label": ["x"]}), folder / "test.parquet")
    assert sides(str(folder))[0] == {"train": ["a"], "dev": ["b"], "test": ["c"]}
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["d", "dev.jsonl", "test.parquet", "train.csv"]
