"""Two formats that are no tables: words with their tags, and questions with their contexts.

    CoNLL    one word and its tag a line, blank lines between texts, `-DOCSTART-` lines between documents
    SQuAD    nested JSON of articles, paragraphs and questions, 1.1 and 2.0

Tags are read as IOB2: in the older IOB1, where B- stands only between neighbours of one kind, every first I- becomes
B-. Other schemes (BILOU, BIOES) and tags that mark no entities (parts of speech) are taken as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from bertshrink.errors import RequestError
from bertshrink.model.texts import Split


def read_conll(path: Path) -> Split:
    """Texts of tagged words: the first column is the word, the last its tag.

    Raises:
        RequestError: a line with a word and no tag, or no text at all.
    """
    words: list[tuple[str, ...]] = []
    tags: list[tuple[str, ...]] = []
    row: list[tuple[str, str]] = []

    def close() -> None:
        if row:
            words.append(tuple(word for word, _ in row))
            tags.append(to_iob2([tag for _, tag in row]))
            row.clear()

    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            columns = line.rstrip("\n").split("\t") if "\t" in line else line.split()
            if not line.strip() or columns[0] == "-DOCSTART-":
                close()
            elif len(columns) < 2:
                raise RequestError(
                    f"line {number} has the word `{columns[0]}` and no tag",
                    where=f"{path}:{number}",
                    hint="write the word, a blank or tab, and the tag; a blank line ends a text",
                )
            elif columns[0].strip():
                row.append((columns[0].strip(), columns[-1].strip()))
    close()
    if not words:
        raise RequestError(f"`{path}` holds no tagged word", where=str(path), hint="give a file with at least one text")
    return Split(tuple(" ".join(row) for row in words), words=tuple(words), labels=tuple(tags))


def to_iob2(tags: Iterable[str]) -> tuple[str, ...]:
    """Tags in IOB2, where every entity begins with B-: an I- that continues nothing of its kind begins one."""
    found: list[str] = []
    before = "O"
    for tag in tags:
        begins = tag.startswith("I-") and before[2:] != tag[2:]
        found.append(f"B-{tag[2:]}" if begins else tag)
        before = tag
    return tuple(found)


def read_squad(data: Sequence[Any], where: str) -> Split:
    """Questions with their contexts and answers, from SQuAD's nested JSON (1.1 and 2.0).

    Raises:
        RequestError: a part is missing, or an answer does not stand where it is said to.
    """
    questions, contexts, answers = [], [], []
    try:
        for article in data:
            for paragraph in article["paragraphs"]:
                context = str(paragraph["context"])
                for asked in paragraph["qas"]:
                    given = () if asked.get("is_impossible") else asked.get("answers", ())
                    questions.append(str(asked["question"]).strip())
                    contexts.append(context)
                    answers.append(tuple((str(a["text"]), int(a["answer_start"])) for a in given))
    except (KeyError, TypeError, AttributeError) as error:
        raise RequestError(f"this is no SQuAD file: {error} is missing", where=where, hint="mend the file") from None
    return answered(questions, contexts, answers, where)


def answered(questions: Sequence[str], contexts: Sequence[str], answers: Sequence[Any], where: str) -> Split:
    """Questions, their contexts, and for each a tuple of (answer, first character); rows without a question go.

    Raises:
        RequestError: an answer does not stand where it is said to.
    """
    for number, (context, row) in enumerate(zip(contexts, answers, strict=True), start=1):
        for text, start in row or ():
            if context[start : start + len(text)] != text:
                raise RequestError(
                    f"question {number}: the answer `{text[:60]}` does not stand at character {start} of its context",
                    where=where,
                    hint="mend `answer_start`: it counts characters of the context from 0",
                )
    keep = [i for i, question in enumerate(questions) if question]
    return Split(tuple(questions), tuple(contexts), labels=tuple(answers)).take(keep)
