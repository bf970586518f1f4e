"""Running text as a stream of documents: kinds of files, dev splits by hash, hub names, what is not running text."""

import gzip
import json
from dataclasses import replace

import datasets
import pytest

from bertshrink.data import hub_datasets
from bertshrink.data.formats.corpus import Corpus
from bertshrink.data.load import is_corpus, load_corpus, read_texts
from bertshrink.data.settings import DataSettings
from bertshrink.errors import MissingDependency, UserError

DOCUMENTS = [
    ["one line of five words", "and a second line here"],
    ["another document of one line"],
    ["last one of them all"],
]
MANY = [*DOCUMENTS, *([f"line {i} of a longer file"] for i in range(9))]


def write(folder, name, documents=DOCUMENTS, **columns):
    """The documents as a file of the kind that its name says."""
    path = folder / name
    if path.suffix == ".txt":
        path.write_text("\n\n\n".join("\n".join(lines) for lines in documents), encoding="utf-8")
    else:
        rows = [columns | {"text": "\n".join(lines)} for lines in documents]
        if path.suffix == ".jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        else:
            datasets.Dataset.from_list(rows).to_parquet(str(path))
    return path


@pytest.mark.parametrize("name", ["train.txt", "train.jsonl", "train.parquet"])
def test_every_kind_of_file_gives_the_same_documents(name, tmp_path):
    path = write(tmp_path, name, MANY, title="not the text")
    texts = read_texts(DataSettings(path=str(path), dev_share=0.5), "mlm")
    assert texts.corpus is not None
    train, dev = (list(side.documents()) for side in (texts.corpus, replace(texts.corpus, is_dev=True)))
    assert sorted(train + dev) == sorted(MANY)
    assert train and dev, "both sides got some"
    assert set(texts.dev.texts) == {line for lines in dev for line in lines}
    assert set(texts.train.texts) == {line for lines in train for line in lines}
    assert any("50 % of the documents, by hash" in note for note in texts.notes)


def test_lines_are_stripped_and_a_byte_order_mark_is_none_of_the_text(tmp_path):
    path = tmp_path / "train.txt"
    path.write_bytes(b"\xef\xbb\xbf first line \r\n\tsecond\r\n \t \r\nthird\r\n\r\n\r\n")
    assert list(Corpus((path,)).documents()) == [["first line", "second"], ["third"]]


def test_running_text_is_unpacked_and_decoded_as_tables_are(tmp_path):
    text = "Grüße aus Köln\r\nzweite Zeile\r\n\r\nnächster Text\r\n"
    expected = [["Grüße aus Köln", "zweite Zeile"], ["nächster Text"]]
    for name, content in (
        ("a[1].txt", text.encode("cp1252")),
        ("b.txt.gz", gzip.compress(text.encode())),
        ("c.txt", text.encode("utf-16")),
    ):
        (tmp_path / name).write_bytes(content)
        assert is_corpus(DataSettings(path=str(tmp_path / name)))
        assert list(Corpus((tmp_path / name,)).documents()) == expected
    (tmp_path / "half.txt").write_bytes("Grüße\n".encode() * 3 + b"\xfc\n")
    with pytest.raises(UserError, match="is UTF-8, but line 4 contains invalid bytes"):
        list(Corpus((tmp_path / "half.txt",)).documents())


def test_the_end_of_a_file_ends_a_document(tmp_path):
    files = tuple(write(tmp_path, f"train-{i:05}-of-00002.txt", [[f"text {i}"]]) for i in range(2))
    assert list(Corpus(files).documents()) == [["text 0"], ["text 1"]]
    write(tmp_path, "dev.txt", [["a separate dev split"]])
    assert load_corpus(DataSettings(path=str(tmp_path))).corpus.files == files


def test_a_folder_with_a_dev_side_draws_none_and_caps_hold(tmp_path):
    write(tmp_path, "train.txt")
    write(tmp_path, "valid.txt", [["what judges the models here", "short", "and one more line that judges"]])
    texts = load_corpus(DataSettings(path=str(tmp_path), max_train=2, max_dev=1))
    assert list(texts.corpus.documents()) == DOCUMENTS[:2]
    assert texts.dev.texts == ("what judges the models here",)
    assert texts.corpus.dev_share == 0
    apart = load_corpus(DataSettings(train=str(tmp_path), dev=str(tmp_path / "valid.txt")))
    assert apart.dev.texts == ("what judges the models here", "and one more line that judges")
    assert apart.train.texts == tuple(line for lines in DOCUMENTS for line in lines)


def test_lines_of_few_words_judge_where_there_are_no_others(tmp_path):
    write(tmp_path, "train.txt", [["few words"], ["here too"]])
    write(tmp_path, "dev.txt", [["two words", "more"]])
    assert load_corpus(DataSettings(path=str(tmp_path))).dev.texts == ("two words", "more")


def test_the_fingerprint_is_of_the_bytes_and_of_what_is_drawn(tmp_path):
    path = write(tmp_path, "train.txt")
    first = Corpus((path,)).fingerprint
    others = [
        Corpus((path,), dev_share=0.1),
        Corpus((path,), dev_share=0.1, is_dev=True),
        Corpus((path,), max_documents=1),
    ]
    assert len({first, *(other.fingerprint for other in others)}) == 4
    assert Corpus((path,)).fingerprint == first
    path.write_text(path.read_text().replace("last", "Last"))
    assert Corpus((path,)).fingerprint != first


def test_what_is_no_running_text_is_read_whole(tmp_path):
    path = write(tmp_path, "train.txt")
    rows = tmp_path / "pairs.jsonl"
    rows.write_text('{"sentence1": "a b", "sentence2": "c d"}\n' * 3)
    (tmp_path / "train.tsv").write_text("text\nsome words\n")
    assert is_corpus(DataSettings(path=str(path)))
    for settings in (
        DataSettings(path="builtin:pydoc"),
        DataSettings(path=str(path), label="label"),
        DataSettings(path=str(rows)),
        DataSettings(path=str(tmp_path / "train.tsv")),
        DataSettings(path=str(tmp_path / "absent.txt")),
    ):
        assert not is_corpus(settings), settings
    assert is_corpus(DataSettings(path=str(rows), text="sentence2"))
    assert read_texts(DataSettings(path=str(path)), "classification").corpus is None


def test_no_text_and_torn_files_are_errors(tmp_path):
    (tmp_path / "train.txt").write_text("\n \n")
    with pytest.raises(UserError, match=r"train split of .* holds no text"):
        read_texts(DataSettings(path=str(tmp_path / "train.txt")), "mlm")
    (tmp_path / "torn.jsonl").write_text('{"text": "one"}\n{"text": "tw')
    with pytest.raises(UserError, match="cannot be read as jsonl"):
        read_texts(DataSettings(path=str(tmp_path / "torn.jsonl")), "mlm")


def test_a_hub_data_set_is_streamed(monkeypatch):
    asked = []

    def load_dataset(*where, split, streaming):
        asked.append((where, split, streaming))
        if len(where) == 1:
            raise ValueError("no such dataset")
        return iter({"id": "7", "text": "\n".join(lines)} for lines in MANY)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(hub_datasets, "hub_is_reachable", lambda: True)
    texts = read_texts(DataSettings(path="someone/encyclopedia/en", dev_share=0.5), "mlm")
    assert texts.corpus.hub == "someone/encyclopedia/en" and texts.corpus.column == "text"
    assert set(asked) == {
        (("someone/encyclopedia/en",), "train", True),
        (("someone/encyclopedia", "en"), "train", True),
    }
    sides = [list(side.documents()) for side in (texts.corpus, replace(texts.corpus, is_dev=True))]
    assert sorted(sides[0] + sides[1]) == sorted(MANY)
    monkeypatch.setattr(datasets, "load_dataset", lambda *where, **more: 1 / 0)
    with pytest.raises(MissingDependency, match="is not a local path, and the hub"):
        read_texts(DataSettings(path="someone/encyclopedia"), "mlm")
