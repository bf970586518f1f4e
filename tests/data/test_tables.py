"""Tables are read as they are written: every cell comes back, or the file is refused by name.

Round trips go through what people write tables with: Python's `csv`, pandas, `datasets`, a spreadsheet's own ways.
"""

import csv
import gzip
import io
import json
import random
from pathlib import Path

import datasets
import pandas
import pyarrow
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from bertshrink.data.readers import _read_table as read_table
from bertshrink.data.readers import read_sides
from bertshrink.data.settings import DataSettings
from bertshrink.data.tables.delimited import read_delimited
from bertshrink.data.tables.table import Table
from bertshrink.errors import UserError

SOME = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
NAMES = ("text", "label", "note", "Größe")
CELLS = st.one_of(
    st.text(st.sampled_from("ab ,;\t|\"'\\\n\r#=äß€é-01.\u2028\x85\x0b"), max_size=8),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8),
    st.sampled_from(["01", "1.10", "007", "NA", "null", "True", "nan", "", " ", "-", "1e5", '"', '""', "\\", "=1"]),
)


@st.composite
def tables(draw, cells=CELLS, min_columns=1):
    """A header of known names, and rows of any strings."""
    names = NAMES[: draw(st.integers(min_columns, len(NAMES)))]
    return names, draw(st.lists(st.tuples(*(cells for _ in names)), min_size=1, max_size=6))


def came_back(path, names, rows, **more):
    """Whether a file gives these cells; False where it is refused. Anything else is a failure.

    A cell that ends with CR, written without quotes before LF, ends as a line of Windows does: that is told.
    """
    try:
        found = read_table(path, DataSettings(path=str(path), **more))
    except UserError as error:
        assert error.where and error.hint and error.exit_code == 2
        return False
    if "CR LF and LF" in found.how:
        return False
    expected = {name: [row[i] for row in rows] for i, name in enumerate(names)}
    assert {name: list(cells) for name, cells in found.columns.items()} == expected, found.how
    return True


# Round trips: whatever is written comes back or is refused


def of_csv(names, rows, **dialect):
    file = io.StringIO(newline="")
    writer = csv.writer(file, **dialect)
    writer.writerow(names)
    writer.writerows(rows)
    return file.getvalue()


@SOME
@given(tables(), st.sampled_from(",;\t|"), st.sampled_from(["\n", "\r\n"]), st.sampled_from(range(3)), st.booleans())
def test_what_csv_writes(tmp_path, table, delimiter, end, quoting, has_suffix):
    names, rows = table
    path = tmp_path / ("t.tsv" if delimiter == "\t" and has_suffix else "t.csv")
    text = of_csv(names, rows, delimiter=delimiter, lineterminator=end, quoting=quoting)
    path.write_text(text, encoding="utf-8", newline="")
    came_back(path, names, rows)


@SOME
@given(tables(min_columns=2), st.sampled_from(",;\t|"), st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_NONE]))
def test_what_csv_writes_with_backslashes(tmp_path, table, delimiter, quoting):
    """Cells with a tab before them keep their backslashes and quotes in a TSV, as GLUE's do; that is told."""
    names, rows = table
    path = tmp_path / "t.csv"
    try:
        text = of_csv(names, rows, delimiter=delimiter, quoting=quoting, escapechar="\\", doublequote=False)
    except csv.Error:
        assume(False)
    path.write_text(text, encoding="utf-8", newline="")
    try:
        came_back(path, names, rows)
    except AssertionError:
        told = read_delimited(path, ".csv").how
        assert "are kept" in told or (delimiter == "\t" and "\\" in text)


@SOME
@given(tables(), st.sampled_from(",;\t"), st.booleans())
def test_what_pandas_writes(tmp_path, table, delimiter, index):
    names, rows = table
    path = tmp_path / "t.csv"
    pandas.DataFrame(rows, columns=names).to_csv(path, sep=delimiter, index=index)
    came_back(path, names, rows)


@SOME
@given(tables(min_columns=2))
def test_what_spreadsheets_write(tmp_path, table):
    names, rows = table
    wide = tmp_path / "unicode.tsv"
    wide.write_bytes(of_csv(names, rows, delimiter="\t").encode("utf-16"))
    assert came_back(wide, names, rows)
    marked = tmp_path / "utf8.csv"
    marked.write_text(of_csv(names, rows, delimiter=";"), encoding="utf-8-sig", newline="")
    assert came_back(marked, names, rows)
    western = tmp_path / "ansi.csv"
    western.write_bytes(of_csv(names, rows, delimiter=";").encode("cp1252", "replace"))
    came_back(western, names, [tuple(c.encode("cp1252", "replace").decode("cp1252") for c in row) for row in rows])


@SOME
@given(tables(), st.sampled_from(["records", "lines", "split", "index", "columns", "values", "table", "list"]))
def test_what_pandas_writes_as_json(tmp_path, table, orient):
    names, rows = table
    path = tmp_path / "t.json"
    frame = pandas.DataFrame(rows, columns=names)
    if orient == "lines":
        frame.to_json(path, orient="records", lines=True)
    elif orient == "list":
        path.write_text(json.dumps(frame.to_dict("list")))
    else:
        frame.to_json(path, orient=orient, index=False) if orient == "table" else frame.to_json(path, orient=orient)
    assert came_back(path, names, rows, **({"columns": names} if orient == "values" else {}))


@SOME
@given(tables(), st.sampled_from(["csv", "json", "parquet", "pandas.parquet"]))
def test_what_datasets_and_parquet_write(tmp_path, table, kind):
    names, rows = table
    columns = {name: [row[i] for row in rows] for i, name in enumerate(names)}
    path = tmp_path / f"t.{kind.rpartition('.')[2]}"
    if kind == "pandas.parquet":
        pandas.DataFrame(columns, index=[f"row {i}" for i in range(len(rows))]).to_parquet(path)
    else:
        getattr(datasets.Dataset.from_dict(columns), f"to_{kind}")(str(path))
    assert came_back(path, names, rows) or kind == "csv"


@SOME
@given(st.text(st.characters(exclude_characters="\0"), max_size=60), st.sampled_from([".csv", ".tsv", ".json", ".txt"]))
def test_any_text_is_read_or_refused(tmp_path, text, suffix):
    path = tmp_path / f"t{suffix}"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        read_table(path, DataSettings(path=str(path)))
    except UserError as error:
        assert error.where and error.hint


@SOME
@given(st.binary(max_size=60), st.sampled_from(["t.csv", "t.csv.gz", "t.jsonl.zst", "t.parquet", "t.conll", "t.json"]))
def test_any_bytes_are_read_or_refused(tmp_path, data, name):
    start = {".gz": b"\x1f\x8b\x08\0", ".zst": b"\x28\xb5\x2f\xfd", ".parquet": b"PAR1"}.get(Path(name).suffix, b"")
    (tmp_path / name).write_bytes(start + data)
    try:
        read_sides(DataSettings(path=str(tmp_path / name)), [])
    except UserError as error:
        assert error.where


# A ticket export as offices make it

TICKET = (
    "Ticketnummer", "Eröffnet am", "Status", "Priorität", "Kunde", "Straße", "PLZ", "Betreff", "Beschreibung",
    "Kategorie", "Lösung", "Betrag (€)",
)  # fmt: skip
SENTENCES = (
    'Der Drucker im 2. Stock zeigt "Papierstau", obwohl kein Papier drin ist;\r\nbitte dringend prüfen!',
    "Sehr geehrte Damen und Herren,\nkein Zugang \u2013 das Kennwort wird abgelehnt.\n\nMit freundlichen Grüßen",
    "Rechnung Nr. 0815/4711 ist doppelt; Betrag: 1.234,50 €",
    "„Größe XL“ fehlt im Lager …",
    "Café-Maschine im Büro défekt, s. Anhang: C:\\Users\\jörg\\bild.png",
)


def test_a_ticket_export_comes_back_cell_by_cell(tmp_path):
    draw = random.Random(3)
    rows = [
        (
            f"{i:06}", f"{draw.randint(1, 28):02}.03.2025 0{i % 10}:15", draw.choice(["offen", "NA", ""]),
            draw.choice(["hoch", "mittel"]), draw.choice(["Müller GmbH & Co. KG", 'Fa. "Schön"', "Weiß; Söhne"]),
            f"Hauptstraße {i}", f"0{draw.randint(1000, 9999)}", f"Störung {i}: läuft nicht", draw.choice(SENTENCES),
            draw.choice(["Hardware", "Zugang", "Rechnung"]), draw.choice(["", "null", "Gerät getauscht"]), f"{i},50",
        )
        for i in range(400)
    ]  # fmt: skip
    path = tmp_path / "Tickets März.csv"
    path.write_bytes(of_csv(TICKET, rows, delimiter=";").encode("cp1252"))
    notes = []
    found = read_table(path, DataSettings())
    assert list(zip(*found.columns.values(), strict=True)) == rows and tuple(found.columns) == TICKET
    assert found.how == "semicolon-separated, cp1252"
    line = 1 + sum(1 + cell.count("\n") for cell in [row[8] for row in rows[:7]])
    assert found.where(7) == f"{path}:{line + 1}"
    side = read_sides(DataSettings(path=str(path), text="Beschreibung", label="Kategorie"), notes)["train"]
    assert side.texts == tuple(row[8].strip() for row in rows) and side.labels == tuple(row[9] for row in rows)
    assert "`Tickets März.csv` was read as semicolon-separated, cp1252" in notes


# What each file becomes


def read(folder, name, content, **more):
    """(columns, how, lines) of a file with this content."""
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    found = read_table(path, DataSettings(path=str(path), **more))
    return {key: list(cells) for key, cells in found.columns.items()}, found.how, list(found.lines)


TWO = {"text": ["a, b", "c"], "label": ["01", "NA"]}


@pytest.mark.parametrize(
    ("name", "content", "how"),
    [
        ("t.csv", 'text,label\n"a, b",01\nc,NA\n', ""),
        ("t.csv", "text;label\na, b;01\nc;NA\n", "semicolon-separated"),
        ("t.csv", "text\tlabel\na, b\t01\nc\tNA", "tab-separated"),
        ("t.csv", "text|label\na, b|01\nc|NA\n", "bar-separated"),
        ("t.tsv", 'text,label\n"a, b",01\nc,NA\n', "comma-separated"),
        ("t.csv", "sep=;\r\ntext;label\r\na, b;01\r\nc;NA\r\n", "semicolon-separated"),
        ("t.csv", 'text,label\r"a, b",01\rc,NA\r', ""),
        ("t.csv", '"text", "label"\n"a, b", "01"\n"c", "NA"\n', ""),
        ("t.csv", 'text,label,\n"a, b",01,\nc,NA,\n', ""),
        ("t.csv", ',text,label\n0,"a, b",01\n1,c,NA\n', "without its first column, which numbers the rows"),
        ("t.csv", ' text , label\n"a, b",01\n\nc,NA\n', ""),
        ("t.csv", "text,label\na\\, b,01\nc,NA\n", "backslashes escape"),
        ("t.csv", "\ufefftext;label\r\na, b;01\r\nc;NA\r\n".encode("utf-16-le"), "semicolon-separated, UTF-16"),
        (
            "t.tsv",
            "text\tlabel\r\na, b\t01\r\nc\tNA\r\n".encode("utf-16-be"),
            "UTF-16 without a byte order mark",
        ),
        ("t.json", '{"text": ["a, b", "c"], "label": ["01", "NA"]}', "column by column"),
        (
            "t.json",
            '{"n": 2, "rows": [{"text": "a, b", "label": "01"}, {"text": "c", "label": "NA"}]}',
            "rows of `rows`",
        ),
        ("t.json", '{"data": [["a, b", "01"], ["c", "NA"]]}', "rows of `data`"),
        ("t.json", '{"text": "a, b", "label": "01"}\n{"text": "c", "label": "NA"}\n', ""),
        ("t.jsonl", '[\n{"text": "a, b", "label": "01"},\n{"text": "c", "label": "NA"}\n]', ""),
        ("t.jsonl", '["a, b", "01"]\n\n["c", "NA"]', ""),
    ],
)
@pytest.mark.parametrize("packed", ["", ".gz", ".zst", "secretly"])
def test_a_file_is_read_whatever_its_form(tmp_path, name, content, how, packed):
    content = content if isinstance(content, bytes) else content.encode()
    if packed == ".zst":
        sink = pyarrow.BufferOutputStream()
        with pyarrow.CompressedOutputStream(sink, "zstd") as stream:
            stream.write(content)
        content = sink.getvalue().to_pybytes()
    elif packed:
        content = gzip.compress(content)
    columns, told, _ = read(tmp_path, name + packed.replace("secretly", ""), content)
    assert (columns, told) == (TWO, how)


def test_quotes_of_a_tsv_are_words_unless_they_do_something(tmp_path):
    def texts(*cells):
        columns, how, _ = read(tmp_path, "t.tsv", "\n".join(("text\tlabel", *(f"{cell}\tx" for cell in cells))) + "\n")
        return columns["text"], how

    assert texts('" a lone one', 'in " between') == (['" a lone one', 'in " between'], "")
    assert texts('"all of it"', "other") == (['"all of it"', "other"], "quotes are kept")
    assert texts('"with a\ttab"', "other") == (["with a\ttab", "other"], "")
    assert texts('"say ""hi"""', '"x"') == (['say "hi"', "x"], "")
    assert texts('"a"', '"b"', '"c"') == (["a", "b", "c"], "")


def test_rows_are_named_by_the_lines_they_begin_on(tmp_path):
    _, _, lines = read(tmp_path, "t.csv", 'text,label\n"a\nb",x\n\nc,y\n')
    assert lines == [2, 5]
    _, _, lines = read(tmp_path, "t.jsonl", '\n{"text": "a"}\n\n{"text": "b"}')
    assert lines == [2, 4]


@pytest.mark.parametrize(
    ("name", "content", "where", "message"),
    [
        ("t.csv", "text,label\na, and b,x\nc,y\n", ":2", "line 2 has 3 fields, and the first line has 2"),
        ("t.csv", "text,label\na,x\nc,y,\n", ":3", "line 3 has 3 fields, and the first line has 2"),
        ("t.csv", "text;label\na;x\nc\n", ":3", "semicolon-separated: line 3 has 1 field, and the first line has 2"),
        ("t.csv", "text\na,x\nc,y\n", ":2", "line 2 has 2 fields, and the first line has 1"),
        ("t.csv", "text\na;x\nc;y\n", ":2", "line 2 has 2 fields, and the first line has 1"),
        ("t.csv", "abc;1,5\ndef;2,5\n", "", "can be read as 2 columns by commas and as 2 columns by semicolons"),
        ("t.csv", 'text,label\n"a" b,x\n', ":2", "line 2 has text after a cell's closing quote"),
        ("t.csv", 'text,label\na,x\n"b,x\nc,y\n', ":3", "line 3 opens a quote that is never closed"),
        ("t.csv", "text,label\na\rb,x\n", ":2", "line 2 holds a carriage return outside of quotes"),
        ("t.csv", "text,text\na,x\n", "", "two columns with the name `text`"),
        ("t.csv", "text, text \na,x\n", "", "two columns with the name `text`"),
        ("t.csv", "text,label\na,x\0\n", ":2", "line 2 of .* holds a NUL byte"),
        ("t.csv", "A plane.,B plane.,5.0\nA man.,B man.,3.8\n", ":1", "no header: .* `5.0` is a number"),
        ("t.csv", "fine,pos\nbad,neg\nok,pos\nso so,neg\n", ":1", "no header: in its first line, `pos` appears again"),
        ("t.tsv", "this reads like a whole text\nand so does this\n", ":1", "no header: .* reads like a text"),
        ("t.csv", "text,label\na,x\ntext,label\nb,y\n", ":3", "line 3 of .* is the same as the first"),
        ("t.csv", b"PK\x03\x04\0\0", "", "is a ZIP archive"),
        ("t.csv", b"\xd0\xcf\x11\xe0\0\0", "", r"Microsoft Office \(.xls\)"),
        ("t.csv", "version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "", "is a git LFS pointer"),
        ("t.csv", "<!DOCTYPE html><html>", "", "is a page of the web"),
        ("t.csv.gz", gzip.compress(b"text,label\na,x\n" * 99, mtime=0)[:-9], "", "cannot be read: .* ended before"),
        ("t.csv", "\n \n", "", "is empty"),
        ("t.json", '{"text": ["a"], "label": [1, 2]}', "", "different lengths: `text` 1, `label` 2"),
        ("t.json", '{"a": [{"text": "x"}], "b": [{"text": "y"}]}', "", "rows under several keys: `a`, `b`"),
        ("t.json", '{"version": 1, "name": {"x": 1}}', "", "neither rows nor columns; its keys: `version`, `name`"),
        ("t.json", '[{"text": "a"}, {"text": "b", "label": NaN}]', ", row 2", "`label` contains NaN or Infinity"),
        ("t.json", '[{"text": "a"}, ["b"]]', ", row 2", "the first is an object, row 2 is a list of 1"),
        ("t.json", '[{"text": "a", "text": "b"}]', "", "has the key `text` twice"),
        ("t.json", "[" * 100_000, ":1", "nested too deeply"),
        ("t.json", '{"text": "a"} {"text": "b"}', ":1", "there is more text after its end"),
        ("t.jsonl", '{"text": "a"}\n{"text": "b"\n', ":2", "line 2: Expecting"),
        ("t.jsonl", '{"text": "a"}\n{"text": "b", "text": "c"}\n', ":2", "has the key `text` twice"),
        ("t.jsonl", '{"text": "a"}\n{"text": "\\ud83d"}\n', ":2", "half of a surrogate pair"),
        ("t.jsonl", '{"text": "a"}\n{"text": ' + "[" * 99 + "]" * 99 + "}\n", ":2", "nested deeper than 16 levels"),
        ("t.jsonl", '{"text": "a", "x": 1e999}\n', ":1", "contains NaN or Infinity"),
        ("t.txt", "text\tlabel\na\tx\nb\ty\n", "", "every line of .* has 1 tabs: it is a table"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused_by_name(tmp_path, name, content, where, message):
    with pytest.raises(UserError, match=message) as caught:
        read(tmp_path, name, content)
    assert caught.value.where.endswith(name + where) and caught.value.hint


def test_objects_in_rows_are_columns_and_lists_stay(tmp_path):
    row = {"t": {"de": "Haus", "en": "house"}, "labels": [0, 1], "n": None}
    columns, _, _ = read(tmp_path, "t.jsonl", json.dumps(row) + '\n{"t": null}\n')
    assert columns == {"t.de": ["Haus", None], "t.en": ["house", None], "labels": [[0, 1], None], "n": [None, None]}
    with pytest.raises(UserError, match=r"two columns with the name `t\.de`"):
        read(tmp_path, "t.jsonl", json.dumps(row | {"t.de": 1}))


def test_columns_of_a_file_without_a_header(tmp_path):
    content = "gj04\t1\t\tThe sailors rode the breeze.\ngj05\t0\t*\tThey drank the pub.\n"
    columns, how, lines = read(tmp_path, "t.tsv", content, columns=("source", "label", "mark", "sentence"))
    assert columns["label"] == ["1", "0"] and columns["mark"] == ["", "*"] and (how, lines) == ("", [1, 2])
    for names, message in (
        (("text", "label"), "2 columns are named, but the rows of .* have 4 fields"),
        (("a", "b", "c", "c"), "two columns with the name `c`"),
    ):
        with pytest.raises(UserError, match=message):
            read(tmp_path, "t.tsv", content, columns=names)
    with pytest.raises(UserError, match="is already a header"):
        read(tmp_path, "t.csv", "text,label\na,x\n", columns=("text", "label"))
    with pytest.raises(UserError, match="name their columns themselves"):
        read(tmp_path, "t.json", '[{"text": "a"}]', columns=("text",))
    assert read(tmp_path, "t.json", '[["x", "a"]]', columns=("label", "text"))[0] == {"label": ["x"], "text": ["a"]}


def test_parquet_keeps_its_types_and_the_names_of_classes(tmp_path):
    features = datasets.Features(
        text=datasets.Value("large_string"),
        label=datasets.ClassLabel(names=["neg", "pos"]),
        tags=datasets.List(datasets.ClassLabel(names=["O", "B"])),
    )
    rows = {"text": ["01", None], "label": [1, 0], "tags": [[0, 1], []]}
    datasets.Dataset.from_dict(rows, features).to_parquet(tmp_path / "t.parquet")
    found = read_table(tmp_path / "t.parquet", DataSettings())
    assert dict(found.columns) == rows
    assert found.label_names == {"label": ("neg", "pos"), "tags": ("O", "B")}
    packed = pyarrow.table({"text": pyarrow.array(["a", "b", "a"]).dictionary_encode(), "n": [1.5, None, 2.0]})
    parquet.write_table(packed, tmp_path / "d.parquet")
    (tmp_path / "d.parquet").rename(tmp_path / "d.csv")
    assert dict(read_table(tmp_path / "d.csv", DataSettings()).columns) == {
        "text": ["a", "b", "a"],
        "n": [1.5, None, 2.0],
    }
    (tmp_path / "torn.parquet").write_bytes((tmp_path / "t.parquet").read_bytes()[:-40])
    with pytest.raises(UserError, match="cannot be read as parquet"):
        read_table(tmp_path / "torn.parquet", DataSettings())


# Where a row is


def test_a_row_is_named_by_its_line_or_its_number():
    columns = {"text": ["a", "b", "c"]}
    assert Table("x.csv", columns, lines=[2, 3, 7]).where(2) == "x.csv:7"
    assert Table("x.parquet", columns).where(0) == "x.parquet, row 1"
    several = Table("x", columns, parts=(("x-0.parquet", 2), ("x-1.parquet", 1)))
    assert [several.where(row) for row in range(3)] == [
        "x-0.parquet, row 1",
        "x-0.parquet, row 2",
        "x-1.parquet, row 1",
    ]
    of_lines = Table("x", columns, lines=[2, 3, 2], parts=(("x.1.csv", 2), ("x.2.csv", 1)))
    assert of_lines.where(2) == "x.2.csv:2"
