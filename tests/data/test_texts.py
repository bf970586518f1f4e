"""Texts from every kind of file, split once and for all, fingerprinted by content."""

import json
import socket
from pathlib import Path

import pytest

from bertshrink.data import hub_datasets, readers
from bertshrink.data.formats.pydoc import paragraphs, read_pydoc
from bertshrink.data.labels.checks import check_labels
from bertshrink.data.load import load
from bertshrink.data.readers import check_source
from bertshrink.data.settings import DataSettings
from bertshrink.data.texts import Split, TextDataset
from bertshrink.errors import MissingDependency, UserError

ROWS = [(f"text number {i}, with 'quotes\" and ünïcode", i % 2) for i in range(40)]


@pytest.fixture(autouse=True)
def _no_network_and_no_cache(tmp_path, monkeypatch):
    """Reading a local file must not reach for the network, and its cache goes with the test."""
    import datasets

    def fail(*arguments, **more):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", fail)
    monkeypatch.setattr(socket, "create_connection", fail)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def write_csv(path, rows=ROWS, encoding="utf-8"):
    lines = ["text,label", *('"' + text.replace('"', '""') + f'",{label}' for text, label in rows)]
    path.write_text("\n".join(lines) + "\n", encoding=encoding)


def write_tsv(path, rows=ROWS, encoding="utf-8"):
    path.write_text("\n".join(["sentence\tlabel", *(f"{t}\t{n}" for t, n in rows)]) + "\n", encoding=encoding)


def write_jsonl(path, rows=ROWS, encoding="utf-8"):
    path.write_text("".join(json.dumps({"text": t, "label": n}) + "\n" for t, n in rows), encoding=encoding)


def write_json(path, rows=ROWS, encoding="utf-8"):
    path.write_text(json.dumps([{"text": t, "label": n} for t, n in rows]), encoding=encoding)


def write_txt(path, rows=ROWS, encoding="utf-8"):
    path.write_text("".join(t + "\n" for t, _ in rows), encoding=encoding)


def write_parquet(path, rows=ROWS, encoding="utf-8"):
    from pyarrow import parquet, table

    parquet.write_table(table({"text": [t for t, _ in rows], "label": [n for _, n in rows]}), path)


WRITERS = {
    ".csv": write_csv,
    ".tsv": write_tsv,
    ".jsonl": write_jsonl,
    ".ndjson": write_jsonl,
    ".json": write_json,
    ".parquet": write_parquet,
    ".txt": write_txt,
}


def all_rows(found):
    labels = [(*(found.train.labels or ()), *(found.dev.labels or ()))]
    return sorted(zip((*found.train.texts, *found.dev.texts), *labels, strict=True)) if labels[0] else None


def test_every_kind_is_tested():
    assert set(WRITERS) == {suffix for suffix, kind in readers.READERS.items() if kind != "conll"}


@pytest.mark.parametrize("suffix", WRITERS)
def test_a_file_of_each_kind(tmp_path, suffix):
    path = tmp_path / f"data{suffix}"
    WRITERS[suffix](path)
    found = load(DataSettings(path=str(path)))
    if suffix == ".txt":
        assert found.train.labels is None
        assert sorted((*found.train.texts, *found.dev.texts)) == sorted(t for t, _ in ROWS)
    else:
        of_text = str if suffix in (".csv", ".tsv") else int  # a cell of text stays text
        assert all_rows(found) == sorted((text, of_text(label)) for text, label in ROWS)
    assert len(found.dev) + len(found.train) == len(ROWS)
    assert "no dev split was given" in found.notes[0]
    again = load(DataSettings(path=str(path)))
    assert (again.train, again.dev, again.fingerprint) == (found.train, found.dev, found.fingerprint)


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".txt", ".json", ".jsonl"])
def test_a_byte_order_mark_is_no_text(tmp_path, suffix):
    plain, marked = tmp_path / f"plain{suffix}", tmp_path / f"marked{suffix}"
    WRITERS[suffix](plain)
    WRITERS[suffix](marked, encoding="utf-8-sig")
    assert load(DataSettings(path=str(marked))).fingerprint == load(DataSettings(path=str(plain))).fingerprint


def test_the_cut_is_fixed_by_each_text_alone(tmp_path):
    write_tsv(tmp_path / "a.tsv")
    write_tsv(tmp_path / "b.tsv", [*ROWS[::-1], ("one more", 1)])
    one, two = (set(load(DataSettings(path=str(tmp_path / name))).dev.texts) for name in ("a.tsv", "b.tsv"))
    assert one
    assert two - {"one more"} == one


@pytest.mark.parametrize(
    "names",
    [
        ("train.tsv", "dev.tsv"),
        ("train.tsv", "validation.tsv"),
        ("training-set.tsv", "valid.tsv"),
        ("train.tsv", "test.tsv"),
    ],
)
def test_a_folder_with_two_sides(tmp_path, names):
    write_tsv(tmp_path / names[0], ROWS[:30])
    write_tsv(tmp_path / names[1], ROWS[30:])
    (tmp_path / "README.md").write_text("words")
    found = load(DataSettings(path=str(tmp_path)))
    assert (len(found.train), len(found.dev), found.notes) == (30, 10, ())
    assert found.dev.texts == tuple(t for t, _ in ROWS[30:])


def test_test_judges_dev_chooses_and_kinds_may_differ(tmp_path):
    write_csv(tmp_path / "train.csv", ROWS[:20])
    write_jsonl(tmp_path / "dev.jsonl", ROWS[20:25])
    write_tsv(tmp_path / "test.tsv", ROWS[25:])
    found = load(DataSettings(path=str(tmp_path)))
    assert (len(found.train), len(found.dev), len(found.test)) == (20, 5, 15)
    assert (found.judged, found.judged_name, found.choosing()) == (found.test, "test", (found.train, found.dev))


def test_two_files(tmp_path):
    write_tsv(tmp_path / "a.tsv", ROWS[:20])
    write_csv(tmp_path / "b.csv", ROWS[20:])
    found = load(DataSettings(train=str(tmp_path / "a.tsv"), dev=str(tmp_path / "b.csv")))
    assert (len(found.train), len(found.dev)) == (20, 20)


def columns(tmp_path, header, *rows, **settings):
    path = tmp_path / "c.tsv"
    path.write_text("\n".join("\t".join(row) for row in (header, *rows)) + "\n")
    found = load(DataSettings(train=str(path), dev=str(path), **settings))
    return found.train.texts, found.train.pairs, found.train.labels


@pytest.mark.parametrize(
    ("header", "settings", "expected"),
    [
        (("idx", "sentence", "label"), {}, (("b",), None, (7,))),
        (("sentence1", "sentence2", "label"), {}, (("a",), ("b",), (7,))),
        (("question", "sentence", "label"), {}, (("a",), ("b",), (7,))),
        (("Quality", "#1 String", "#2 String"), {}, (("b",), ("7",), ("a",))),
        (("utt", "other", "intent"), {}, (("a",), None, (7,))),
        (("x", "y", "z"), {"text": "y"}, (("b",), None, None)),
        (("x", "y", "z"), {"text": "y", "pair": "x", "label": "z"}, (("b",), ("a",), (7,))),
        (("text", "label", "mood"), {"label": "mood"}, (("a",), None, (7,))),
        (("text", "second", "label"), {"pair": "second"}, (("a",), ("b",), (7,))),
    ],
)
def test_columns_are_told_by_their_names_or_named(tmp_path, header, settings, expected):
    texts, pairs, labels = columns(tmp_path, header, ("a", "b", "7"), **settings)
    kinds = [column and tuple(map(str, column)) for column in (texts, pairs, labels)]
    assert kinds == [column and tuple(map(str, column)) for column in expected]


@pytest.mark.parametrize(
    ("header", "settings", "message"),
    [
        (("x", "y", "z"), {}, r"cannot tell which column holds the text[^$]*\n    x  a  \([^$]*\n    z  7  "),
        (("text", "y", "z"), {"label": "w"}, "there is no column `w`"),
        (("text", "y", "z"), {"text": "w"}, "there is no column `w`"),
        (("text", "y", "z"), {"pair": "w"}, "there is no column `w`"),
    ],
)
def test_columns_that_are_not_there(tmp_path, header, settings, message):
    with pytest.raises(UserError, match=message) as caught:
        columns(tmp_path, header, ("a", "b", "7"), **settings)
    assert caught.value.hint


def test_words_that_look_like_nothing_are_words(tmp_path):
    texts, _, _ = columns(tmp_path, ("text", "label"), ("NA", "0"), ("null", "1"), ("None", "0"), ("nan", "1"))
    assert texts == ("NA", "null", "None", "nan")


def test_rows_without_text_are_dropped_with_their_labels(tmp_path):
    texts, _, labels = columns(tmp_path, ("text", "label"), ("a", "0"), ("  ", "1"), ("b", "2"))
    assert (texts, labels) == (("a", "b"), ("0", "2"))


def test_a_missing_second_text_is_empty(tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_text('{"sentence1": "a", "sentence2": null}\n{"sentence1": "b", "sentence2": "c"}\n')
    found = load(DataSettings(train=str(path), dev=str(path)))
    assert found.train.pairs == ("", "c")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.tsv", "", "is empty"),
        ("a.txt", "", "is empty"),
        ("a.txt", "\n\n \n", "holds no text"),
        ("a.tsv", "text\tlabel\n", "holds no text|cannot be read"),
        ("a.jsonl", "{", "cannot be read as jsonl"),
        ("a.json", "3", "cannot be read as json"),
        ("a.parquet", "no parquet", "cannot be read as parquet"),
        ("a.csv", 'text,label\n"a,1\n', "comma-separated: line 2 opens a quote that is never closed"),
        (
            "a.csv",
            "text,label\na,b,c,d\ne,f,g,h,i,j\n",
            "line 2 has 4 fields, and the first line has 2",
        ),
        ("a.csv", b"text,label\n\xff\xfe\x00,1\n", "line 2 of .* holds a NUL byte"),
        ("a.xml", "x", "is not a text file"),
    ],
)
def test_files_that_hold_no_text(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=message) as caught:
        load(DataSettings(train=str(path), dev=str(path)))
    assert caught.value.hint or caught.value.where
    with pytest.raises(UserError, match=message):
        load(DataSettings(path=str(path)))


def test_an_empty_side(tmp_path):
    write_tsv(tmp_path / "train.tsv")
    write_tsv(tmp_path / "dev.tsv", [(" ", 0)])
    with pytest.raises(UserError, match=r"the dev split of .* holds no text"):
        load(DataSettings(path=str(tmp_path)))


def texts_of(labels, dev=(0, 1)):
    def side(values):
        return Split(tuple(f"t{i}" for i in range(len(values or "ab"))), labels=values and tuple(values))

    return TextDataset("d", side(labels), side(dev))


def test_labels_that_can_teach():
    check_labels(texts_of([0, 1, 1]))
    with pytest.raises(
        UserError, match="every label of the train split of `d` is `1`: there is nothing to learn from them"
    ):
        check_labels(texts_of([1, 1]))
    with pytest.raises(UserError, match="every label of the dev split of `d` is `0`"):
        check_labels(texts_of([0, 1], [0]))
    with pytest.raises(UserError, match="the train split of `d` has no labels"):
        check_labels(texts_of(None))


def test_fewer_texts_are_a_fixed_choice(tmp_path):
    write_tsv(tmp_path / "train.tsv", ROWS[:30])
    write_tsv(tmp_path / "dev.tsv", ROWS[30:])
    whole = load(DataSettings(path=str(tmp_path)))
    few = load(DataSettings(path=str(tmp_path), max_train=7, max_dev=3))
    fewer = load(DataSettings(path=str(tmp_path), max_train=5))
    assert (len(few.train), len(few.dev)) == (7, 3)
    assert set(fewer.train.texts) < set(few.train.texts) < set(whole.train.texts)
    assert [t for t in whole.train.texts if t in few.train.texts] == list(few.train.texts), "in their order"
    assert dict(zip(few.train.texts, few.train.labels, strict=True)).items() <= {t: str(n) for t, n in ROWS}.items()
    assert len({whole.fingerprint, few.fingerprint, fewer.fingerprint}) == 3


def test_the_fingerprint_is_the_content(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_tsv(tmp_path / name / "train.tsv", ROWS[:30])
        write_tsv(tmp_path / name / "dev.tsv", ROWS[30:])

    def read(name):
        return load(DataSettings(path=str(tmp_path / name))).fingerprint

    one = read("one")
    assert read("two") == one, "a moved folder is the same data"
    write_tsv(tmp_path / "two" / "train.tsv", [(ROWS[0][0], 1), *ROWS[1:30]])
    assert read("two") != one, "another label"
    write_tsv(tmp_path / "two" / "train.tsv", [*ROWS[1:30], ROWS[0]])
    assert read("two") != one, "another order"


def test_an_overlap_is_told(tmp_path):
    write_tsv(tmp_path / "train.tsv", ROWS[:30])
    write_tsv(tmp_path / "dev.tsv", ROWS[28:])
    assert load(DataSettings(path=str(tmp_path))).notes == ("2 texts of the dev split are also in the training split",)


def test_pairs_apart_are_texts_of_their_own_each_once():
    pairs = Split(("a", "b"), ("b", " "), labels=(0, 1))
    texts = TextDataset("d", pairs, Split(("c",)), notes=("n",))
    found = texts.apart()
    assert (found.train, found.dev) == (Split(("a", "b")), Split(("c",)))
    assert found.notes[0] == "n" and "2 in train, 1 in dev" in found.notes[1]
    assert found.fingerprint != texts.fingerprint
    alone = TextDataset("d", Split(("a",), labels=(0,)), Split(("c",)))
    assert alone.apart() is alone


def test_a_split_is_a_sequence_of_rows():
    split = Split(("a", "b", "c"), ("x", "y", "z"), labels=(0, 1, 2))
    assert (split[1].text, split[-1].pair, [row.label for row in split]) == ("b", "z", [0, 1, 2])
    assert [row.text for row in split[::2]] == ["a", "c"]
    assert split.take([2, 0]) == Split(("c", "a"), ("z", "x"), labels=(2, 0))


@pytest.mark.parametrize("name", ["builtin:x", "./none", "/none/x", "none.tsv", "a/b/c/d", "~nobody/x.tsv", "x" * 5000])
def test_sources_that_cannot_be(name):
    with pytest.raises(UserError):
        check_source(name, "here")


@pytest.mark.parametrize("name", ["builtin:pydoc", "imdb", "glue/sst2", "Salesforce/wikitext/wikitext-2-raw-v1"])
def test_sources_that_may_be(name):
    check_source(name, "here")


def test_a_hub_name_without_a_hub(monkeypatch):
    monkeypatch.setattr(hub_datasets, "hub_is_reachable", lambda: False)
    import datasets

    def offline(*arguments, **more):
        raise ConnectionError("offline")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    with pytest.raises(MissingDependency, match="does not provide it as a dataset: offline") as caught:
        load(DataSettings(path="glue/sst2"))
    assert "builtin:pydoc" in caught.value.hint


def test_the_names_of_a_hub_data_sets_classes_travel_along(monkeypatch):
    import datasets

    features = datasets.Features(text=datasets.Value("string"), label=datasets.ClassLabel(names=["neg", "pos"]))
    rows = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [1, 0]}, features=features)
    monkeypatch.setattr(hub_datasets, "hub_is_reachable", lambda: True)
    monkeypatch.setattr(datasets, "load_dataset", lambda *a, **k: datasets.DatasetDict(train=rows, validation=rows))
    found = load(DataSettings(path="glue/sst2"))
    assert (found.dev.labels, found.dev.label_names) == ((1, 0), ("neg", "pos"))


# The documentation of the installed Python


@pytest.fixture(scope="module")
def pydoc():
    return load(DataSettings(path="builtin:pydoc"))


@pytest.mark.slow
def test_pydoc_is_a_good_deal_of_english_cut_once_and_for_all(pydoc):
    train, dev = pydoc.train.texts, pydoc.dev.texts
    assert len(train) > 5000
    assert 0.05 < len(dev) / len(train) < 0.3
    assert not set(train) & set(dev)
    assert len(set(train)) == len(train)
    assert len(set(dev)) == len(dev)
    assert all(4 <= len(text.split()) <= 60 for text in (*train, *dev))
    assert pydoc.train.labels is None


def test_pydoc_is_read_the_same_way_twice(monkeypatch):
    import json as package

    monkeypatch.setattr("sysconfig.get_paths", lambda: {"stdlib": Path(package.__file__).parent})
    train, dev = read_pydoc()
    assert train
    assert read_pydoc() == (train, dev)


def test_paragraphs_are_sentences():
    documentation = """Return the first element of it.

    >>> first([1])
    1

    Raises an error
    when there is none.

    a | b | c | 1 | 2 | 3 | 4 | 5
    too short
    """
    assert paragraphs(documentation) == ["Return the first element of it.", "Raises an error when there is none."]


def test_a_side_in_shards_is_read_whole(tmp_path):
    for i in range(2):
        (tmp_path / f"train-0000{i}-of-00002.jsonl").write_text(f'{{"text": "shard {i}"}}\n')
    (tmp_path / "dev.jsonl").write_text('{"text": "other"}\n')
    found = load(DataSettings(path=str(tmp_path)))
    assert found.train.texts == ("shard 0", "shard 1") and found.dev.texts == ("other",)
