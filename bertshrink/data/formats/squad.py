"""Questions with their contexts and answers: SQuAD's nested JSON, 1.1 and 2.0, and rows of a table of the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from bertshrink.data.columns.roles import Roles, shown
from bertshrink.data.tables.table import Table
from bertshrink.data.texts import Split
from bertshrink.errors import UserError


def read_squad(data: Sequence[Any], where: str) -> Split:
    """Questions with their contexts and answers, from SQuAD's nested JSON.

    A question whose answers are not given is unlabelled; one that is impossible, or has an empty list, has none.

    Raises:
        UserError: a part is missing, or an answer is not where it should be.
    """
    questions, contexts, answers = [], [], []
    try:
        for article in data:
            for paragraph in article["paragraphs"]:
                context = str(paragraph["context"])
                for asked in paragraph["qas"]:
                    given = [] if asked.get("is_impossible") else asked.get("answers")
                    questions.append(str(asked["question"]).strip())
                    contexts.append(context)
                    answers.append(answers_of(given, f"{where}, question {len(questions)}"))
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"this is not a SQuAD file: {error} is missing", where=where, hint="fix the file") from None
    split = answered(questions, contexts, answers, where)
    roles = Roles(Table(where, {}), "question", "context", ("answers",), num_rows=len(questions))
    return replace(split, roles=replace(roles, num_empty=len(questions) - len(split)))


def answers_of(given: Any, where: str) -> tuple[tuple[str, int], ...] | None:
    """Answers with their first characters, given as lists by field, objects in a list, or one object; null: None.

    Raises:
        UserError: they are written in another way.
    """
    if given is None:
        return None
    try:
        if isinstance(given, dict):
            texts, starts = given["text"], given["answer_start"]
            pairs = list(zip(texts, starts, strict=True)) if isinstance(texts, list) else [(texts, starts)]
        elif isinstance(given, list):
            pairs = [(one["text"], one["answer_start"]) for one in given]
        else:
            raise TypeError
        answers = []
        for text, start in pairs:
            if not isinstance(text, str) or isinstance(start, bool) or int(start) != float(start):
                raise TypeError
            answers.append((text, int(start)))
    except KeyError as error:
        raise UserError(f"{error} is missing in the answer `{shown(given)}`", where=where, hint=_HINT) from None
    except (TypeError, ValueError, OverflowError):
        raise UserError(f"`{shown(given)}` is not an answer", where=where, hint=_HINT) from None
    return tuple(answers)


_HINT = 'write `{"text": ["words"], "answer_start": [4]}`, or a list of such answers, empty where there is none'


def answered(questions: Sequence[str], contexts: Sequence[str], answers: Sequence[Any], where: str) -> Split:
    """Questions, their contexts, and for each a tuple of (answer, first character) or None; without a question they go.

    Raises:
        UserError: an answer is not where it should be.
    """
    for number, (context, row) in enumerate(zip(contexts, answers, strict=True), start=1):
        for text, start in row or ():
            if start < 0 or context[start : start + len(text)] != text:
                raise UserError(
                    f"question {number}: the answer `{text[:60]}` does not start at character {start} of its context",
                    where=where,
                    hint="fix `answer_start`: it counts characters of the context from 0",
                )
    keep = [i for i, question in enumerate(questions) if question]
    labels = tuple(answers) if any(row is not None for row in answers) else None
    whole = Split(tuple(questions), tuple(contexts), labels=labels, rows=tuple(range(len(questions))))
    return whole.take(keep)
