"""Text of others is read within bounds; what is beyond is refused by the caller's kind of error, never waited for."""

import json
import os
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertshrink.config.located_yaml import read_yaml
from bertshrink.errors import BaselineError, UnsafeModel, UserError
from bertshrink.files.atomic import MANIFEST, new_folder, verify
from bertshrink.files.bounded_text import Reader
from bertshrink.files.headers import read_header

READER = Reader(BaselineError, "the lock is damaged", "fix it", most_bytes=10_000)
# as files hold texts, keys no less than values: no NUL, no half of a pair
TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False, allow_subnormal=False)  # some engine may flush them
    | TEXTS,
    lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner),
    max_leaves=20,
)


@pytest.mark.slow
@given(VALUES, st.booleans(), st.sampled_from([None, 1]))
def test_what_python_writes_is_read_as_it_is(value, ascii_only, indent):
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent)
    assert READER.json(text, "x") == value
    assert READER.json(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode(), "x") == value


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("{", "expecting property name"),
        ("", "expecting value"),
        ("[" * 100_000, "deep"),
        ("[" * 65 + "]" * 65, "deep"),
        ('{"a":' * 70 + "1" + "}" * 70, "deep"),
        ("[NaN]", "`NaN` is not a number"),
        ("[-Infinity]", "not a number"),
        ("[1e400]", "too large"),
        ("1" * 50, "more than 40 digits"),
        ("-" + "1" * 5000, "more than 40 digits"),
        ('{"a": 1, "b": {"a": 1, "a": 2}}', "`a` appears twice"),
        (r'{"a": ["\ud83d"]}', "`a.0` holds one half"),
        (r'{"\udc00": 1}', "half"),
        (r'["a\u0000b"]', "NUL"),
        (b"\xff\xfe{\0}\0", "not UTF-8"),
        ("x" * 10, "expecting value"),
    ],
)
def test_json_beyond_the_bounds(text, what):
    with pytest.raises(BaselineError, match=re.escape(what)) as found:
        READER.json(text, "a.json")
    assert found.value.what.startswith("the lock is damaged: ")
    assert found.value.where.startswith("a.json")
    assert found.value.hint == "fix it"


def test_a_pair_of_halves_is_a_character():
    assert READER.json(r'["\ud83d\ude00"]', "x") == ["\U0001f600"]
    assert Reader(UnsafeModel, "x", "y", may_have_nul=True).json(r'["\u0000"]', "x") == ["\0"]


def test_a_place_in_json():
    with pytest.raises(BaselineError) as found:
        READER.json('{\n "a": oops}', "a.json")
    assert found.value.where == "a.json:2:7"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("a = ", "not TOML"),
        ("a = " + "[" * 5000, "deep"),
        (".".join("a" * 100_000) + " = 1", "deep"),
        ("a = " + "1" * 5000, "more than 40 digits"),
        ("a = " + "1" * 60, "`a`: an integer has more"),
        ("a = inf", "`a`: `inf` is not a number"),
        ("a = 1e999", "`a`: `inf` is not a number"),
        ('a = "\\u0000"', "`a` holds the character NUL"),
        ("a = 1\na = 2", "overwrite"),
    ],
)
def test_toml_beyond_the_bounds(text, what):
    start = time.monotonic()
    with pytest.raises(BaselineError, match=re.escape(what)) as found:
        READER.toml(text, "a.toml")
    assert found.value.where.startswith("a.toml")
    assert time.monotonic() - start < 5


def test_tables_of_others_are_theirs():
    text = "[tool.x]\nlimit = inf\n[tool.mine]\na = 1\n"
    assert READER.toml(text, "x", ("tool", "mine"))["tool"]["mine"] == {"a": 1}
    with pytest.raises(BaselineError, match=r"`tool.x.limit`"):
        READER.toml(text, "x", ("tool", "x"))


@pytest.mark.parametrize("kind", ["fifo", "folder", "zero", "link", "missing", "long", "nul", "large"])
def test_what_is_no_plain_file_is_not_waited_for(tmp_path, kind):
    path = tmp_path / "a.json"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "zero":
        path.symlink_to("/dev/zero")
    elif kind == "link":
        path.symlink_to(path)
    elif kind == "long":
        path = tmp_path / ("a" * 300)
    elif kind == "nul":
        path = tmp_path / "a\0b"
    elif kind == "large":
        path.write_bytes(b" " * 20_000)
    with pytest.raises(BaselineError) as found:
        READER.read_json(path)
    assert found.value.where == str(path)


def test_a_link_to_a_plain_file_is_read(tmp_path):
    (tmp_path / "b").write_text("[1]")
    (tmp_path / "a").symlink_to(tmp_path / "b")
    assert READER.read_json(tmp_path / "a") == [1]


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(12)
)


@pytest.mark.parametrize(
    ("text", "what", "place"),
    [
        (BOMB, "more than 20000 values", "r.yaml:5"),
        ("a: " + "[" * 10_000, "more than 32 deep", "r.yaml:1:35"),
        ("- " * 10_000, "more than 32 deep", "r.yaml:1"),
        ("a: &x [*x]", "inside or before its anchor", "r.yaml:1:8"),
        ("a: *x", "inside or before its anchor", "r.yaml:1:4"),
        ("a: !mine 3", "the tag `!mine`", "r.yaml:1:4"),
        ("a: !!binary aGk=", "the tag `!!binary`", "r.yaml:1:4"),
        ("a: !!timestamp 2020-01-01", "the tag `!!timestamp`", "r.yaml:1:4"),
        ("%YAML 1.1\n---\na: yes", "directives", "r.yaml"),
        ("1: a\n'1': b", "`1` appears twice", "r.yaml"),
        ("a: 1\na: 2", "duplicate key", "r.yaml:2:1"),
        ("? [a]\n: b", "a key is a list", "r.yaml"),
        ("a: " + "1" * 5000, "not YAML", "r.yaml"),
        ("a: " + "1" * 60, "more than 40 digits", "r.yaml:1:1"),
        ('a: "\\0"', "NUL", "r.yaml:1:4"),
        ("a: !!int x", "not YAML", "r.yaml"),
    ],
)
def test_yaml_beyond_the_bounds(text, what, place):
    start = time.monotonic()
    with pytest.raises(UserError, match=re.escape(what)) as found:
        read_yaml(text, "r.yaml")
    assert found.value.where.startswith(place)
    assert time.monotonic() - start < 5


def test_a_date_is_the_text_that_stands_there():
    text = "name: 2026-11-30\nat: 2026-11-30T10:00:00Z\nstages: [2020-01-01]\nb: !!str 1"
    found = read_yaml(text, "r.yaml").values
    assert found == {"name": "2026-11-30", "at": "2026-11-30T10:00:00Z", "stages": ["2020-01-01"], "b": "1"}


@pytest.mark.parametrize(
    "entry",
    [
        '{"dtype": "F32", "shape": [1], "data_offsets": [0, Infinity]}',
        '{"dtype": "F32", "shape": [1], "data_offsets": [0, 1e400]}',
        '{"dtype": "F32", "shape": [1], "data_offsets": [NaN, 4]}',
        '{"dtype": "F32", "shape": [1], "data_offsets": ["0", "4"]}',
        '{"dtype": "F32", "shape": [1], "data_offsets": [0.0, 4.0]}',
        '{"dtype": "F32", "shape": [1], "data_offsets": [false, 4]}',
        '{"dtype": "F32", "shape": [1], "data_offsets": [0, 4, 8]}',
        '{"dtype": "F32", "shape": [1e400], "data_offsets": [0, 4]}',
        '{"dtype": "F32", "shape": ["1"], "data_offsets": [0, 4]}',
        '{"dtype": "F32", "shape": [-1, -1], "data_offsets": [0, 4]}',
        '{"dtype": "F32", "shape": [true], "data_offsets": [0, 4]}',
        '{"dtype": "F32", "shape": [99999999999999999999], "data_offsets": [0, 4]}',
        '{"dtype": 32, "shape": [1], "data_offsets": [0, 4]}',
        '{"shape": [1], "data_offsets": [0, 4]}',
        '{"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}',
        "[]",
    ],
)
def test_a_tensor_that_is_none(tmp_path, entry):
    text = f'{{"w": {entry}}}'.encode()
    (tmp_path / "a").write_bytes(len(text).to_bytes(8, "little") + text + bytes(4))
    with pytest.raises(UnsafeModel):
        read_header(tmp_path / "a")


@pytest.mark.parametrize("text", [b"{}", b'{"__metadata__": {}}', b'{"__metadata__": 3, "w": {}}', b" "])
def test_a_header_without_tensors(tmp_path, text):
    (tmp_path / "a").write_bytes(len(text).to_bytes(8, "little") + text)
    with pytest.raises(UnsafeModel):
        read_header(tmp_path / "a")


@pytest.fixture
def sealed(tmp_path):
    with new_folder(tmp_path / "out") as scratch:
        (scratch / "config.json").write_text("{}")
    return tmp_path / "out"


@pytest.mark.parametrize("kind", ["fifo", "folder", "zero", "dangling"])
def test_a_sealed_file_that_became_something_else(sealed, kind):
    path = sealed / "config.json"
    path.unlink()
    {
        "fifo": lambda: os.mkfifo(path),
        "folder": path.mkdir,
        "zero": lambda: path.symlink_to("/dev/zero"),
        "dangling": lambda: path.symlink_to("nowhere"),
    }[kind]()
    with pytest.raises(UnsafeModel, match=r"`config\.json` has changed"):
        verify(sealed)


@pytest.mark.parametrize("kind", ["fifo", "folder", "zero"])
def test_a_manifest_that_became_something_else(sealed, kind):
    path = sealed / MANIFEST
    path.unlink()
    {"fifo": lambda: os.mkfifo(path), "folder": path.mkdir, "zero": lambda: path.symlink_to("/dev/zero")}[kind]()
    with pytest.raises(UnsafeModel, match="manifest is unreadable"):
        verify(sealed)


@pytest.mark.parametrize(
    "files",
    [
        {"../config.json": {"sha256": "", "bytes": 0}},
        {"/etc/passwd": {"sha256": "", "bytes": 0}},
        {"a" * 300: {"sha256": "", "bytes": 0}},
        {"a\0": {"sha256": "", "bytes": 0}},
        {"": {"sha256": "", "bytes": 0}},
        {"config.json": {"sha256": 3, "bytes": 2}},
        {"config.json": {"sha256": "", "bytes": 1e300}},
        {"config.json": [1, 2]},
        [],
        None,
    ],
)
def test_an_absurd_manifest(sealed, files):
    (sealed / MANIFEST).write_text(json.dumps({"files": files}))
    with pytest.raises(UnsafeModel, match="manifest is unreadable"):
        verify(sealed)


def test_a_file_added_to_a_sealed_folder(sealed):
    (sealed / "notes.md").write_text("mine")
    (sealed / "README.md").write_text("edited")
    assert verify(sealed)
    (sealed / "added_tokens.json").write_text("{}")
    with pytest.raises(UnsafeModel, match=r"`added_tokens\.json` was added"):
        verify(sealed)
