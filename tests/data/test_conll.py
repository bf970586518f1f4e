"""CoNLL files: what is a word, what is its tag, and what is neither."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertshrink.data.formats.conll import read_conll, to_iob2
from bertshrink.data.settings import DataSettings
from bertshrink.errors import UserError


def read(content, /, **settings):
    return read_conll(content.splitlines(), "a.conll", DataSettings(**settings))


def rows(content, /, **settings):
    found = read(content, **settings)
    return list(zip(found.words, found.labels, strict=True))


UNIVERSAL = """# newdoc id = weblog-1
# sent_id = weblog-1-1
# text = Vámonos al mar
1-2\tVámonos\t_\t_\t_\t_\t_\t_\t_\t_
1\tVamos\tir\tVERB\t_\tMood=Imp\t0\troot\t_\t_
2\tnos\tnosotros\tPRON\t_\tCase=Acc\t1\tobj\t_\t_
3-4\tal\t_\t_\t_\t_\t_\t_\t_\t_
3\ta\ta\tADP\t_\t_\t5\tcase\t_\t_
4\tel\tel\tDET\t_\t_\t5\tdet\t_\t_
5\tmar\tmar\tNOUN\t_\t_\t1\tobl\t_\t_
5.1\tsee\tsee\tVERB\t_\t_\t_\t_\t_\t_

# sent_id = weblog-1-2
1\tSí\tsí\tINTJ\t_\t_\t0\troot\t_\t_
"""


def test_conll_u_by_the_numbers_of_its_columns():
    expected = [
        (("Vamos", "nos", "a", "el", "mar"), ("VERB", "PRON", "ADP", "DET", "NOUN")),
        (("Sí",), ("INTJ",)),
    ]
    assert rows(UNIVERSAL, text="2", label="4") == expected
    assert rows(UNIVERSAL, label="4") == expected, "the first column numbers the words, so the second has them"


def test_the_tags_of_conll_u_are_asked_for():
    with pytest.raises(UserError, match="which of 10 columns holds the tags") as caught:
        read(UNIVERSAL)
    assert "\n    4  VERB" in caught.value.what or "\n    2  Vámonos" in caught.value.what
    assert "--label" in caught.value.hint


def test_numbered_words_with_one_tag_each():
    text = "#\thttp://x.y/z [2010]\n1\tAufgrund\tO\n2\tUlm\tB-LOC\n\n#\thttp://x.y/q\n1\tda\tO\n"
    assert rows(text) == [(("Aufgrund", "Ulm"), ("O", "B-LOC")), (("da",), ("O",))]
    nested = text.replace("\tO\n", "\tO\tO\n").replace("\tB-LOC\n", "\tB-LOC\tO\n")
    assert rows(nested, text="2", label="3") == rows(text)


def test_documents_and_comments_end_or_begin_texts():
    text = (
        "#begin document (a); part 000\n-DOCSTART- -X- O O\n\nAnna NNP B-NP B-PER\n\n"
        "# sent_id = O\n#comment = 1\nsaw VBD B-VP O\n#end document\nUlm NNP B-NP B-LOC\n"
    )
    assert [words for words, _ in rows(text)] == [("Anna",), ("saw",), ("Ulm",)]


@pytest.mark.parametrize(
    ("text", "words", "tags"),
    [
        ("# O\n1 O\n", ("#", "1"), ("O", "O")),
        ("#\tO\nnr\tO\n", ("#", "nr"), ("O", "O")),
        ("#winning B-X\nyes O\n", ("#winning", "yes"), ("B-X", "O")),
        ("a O\n# O\n#b O\n", ("a", "#", "#b"), ("O", "O", "O")),
        ("a DT\n# SYM\n", ("a", "#"), ("DT", "SYM")),
        ("#a O\n#b O\n", ("#a", "#b"), ("O", "O")),
        ("#\t#\tI-NP\tO\nx\tNN\tI-NP\tO\n", ("#", "x"), ("O", "O")),
    ],
)
def test_the_sign_of_a_comment_with_a_tag_is_a_word(text, words, tags):
    assert rows(text) == [(words, tags)]


def test_what_may_be_either_is_refused():
    with pytest.raises(UserError, match="may be a comment, or the word `#` with the tag `text`") as caught:
        read("# text\na DT\n\n")
    assert caught.value.where == "a.conll:1"
    assert rows("# newpar\na DT\n") == [(("a",), ("DT",))]


@pytest.mark.parametrize(
    ("text", "message", "where"),
    [
        ("a O\n\nlonely\n", "line 3 has the word `lonely` and no tag", "a.conll:3"),
        ("a\tO\nb\t\n", "line 2 has the word `b` and no tag", "a.conll:2"),
        ("a O\nNew York B-LOC\nb O\n", "line 2 has 3 columns, and most have 2", "a.conll:2"),
        ("a DT O\nb O\nc NN O\n", "line 2 has 2 columns, and most have 3", "a.conll:2"),
        ("O\twhat\nB-GENRE\tcomedy\n", "the tags seem to be in column 1", "a.conll"),
        ("x 0 0 In IN -\nx 0 1 it PRP -\n", "which of 6 columns holds the tags", "a.conll"),
        ("doc In O\n" * 30, "column 1 holds the same word in every line", "a.conll"),
        ("# only = this\n\n", "contains no tagged words", "a.conll"),
        ("", "contains no tagged words", "a.conll"),
    ],
)
def test_what_is_no_such_file_is_refused_with_its_line(text, message, where):
    with pytest.raises(UserError, match=message) as caught:
        read(text)
    assert caught.value.where == where and caught.value.hint


def test_columns_as_told():
    film = "O\twhat\nB-GENRE\tcomedy\n"
    assert rows(film, text="2", label="1") == [(("what", "comedy"), ("O", "B-GENRE"))]
    assert read("a X O\n", label="none").labels is None
    assert rows("a X O\n", label="2") == [(("a",), ("X",))]
    for settings in ({"text": "word"}, {"label": "4"}, {"text": "0"}, {"text": "2", "label": "2"}, {"pair": "2"}):
        with pytest.raises(UserError):
            read("a X O\n", **settings)
    with pytest.raises(UserError, match="nothing in column 3"):
        read("a X O\nb X\n", label="3")


def test_a_word_may_hold_blanks_where_tabs_part_the_columns():
    assert rows("New York\tB-LOC\n10\u00a0000 O\n") == [(("New York", "10\u00a0000"), ("B-LOC", "O"))]


WORDS = st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1, max_size=6)


@pytest.mark.slow
@given(st.lists(st.lists(st.tuples(WORDS, st.sampled_from(["O", "B-X", "B-Y"])), min_size=1, max_size=5), min_size=1))
def test_every_word_with_a_tag_is_read_back(texts):
    texts = [[(word, tag) for word, tag in text if word != "-DOCSTART-"] for text in texts]
    texts = [text for text in texts if text]
    if not texts:
        return
    written = "\n\n".join("\n".join(f"{word}\t{tag}" for word, tag in text) for text in texts)
    found = read_conll(written.split("\n"), "a.conll", DataSettings())
    assert [list(zip(*row, strict=True)) for row in zip(found.words, found.labels, strict=True)] == texts
    assert all(to_iob2(tags) == tags for tags in found.labels)
