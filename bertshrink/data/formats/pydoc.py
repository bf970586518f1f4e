"""Real English that every machine with Python has: the documentation strings of its standard library.

Sources are read with `ast`, nothing is imported, and joined by the language reference in `pydoc_data.topics`. A text
is one paragraph: whitespace folded, doctest and table lines dropped, between 4 and 60 words, mostly letters. Which
side a text is on is fixed by its module's name, so no module, and after a last look no text, is on both sides.
"""

from __future__ import annotations

import ast
import hashlib
import re
import sysconfig
from collections.abc import Iterator
from pathlib import Path

MIN_WORDS, MAX_WORDS = 4, 60
"""Shorter is a name, longer is a list or a table."""

DEV_MODULES = 8
"""One module in this many is on the dev split."""

_SKIPPED = {"test", "tests", "idlelib", "site-packages", "dist-packages", "lib2to3", "turtledemo", "__pycache__"}
_NOT_PROSE = (">>>", "...", "+--", "===", "---", "|")
_LETTERS = re.compile(r"[A-Za-z ]")


def read_pydoc() -> tuple[list[str], list[str]]:
    """The train and dev texts, each sorted by module and place, without repeats."""
    sides: tuple[dict[str, None], dict[str, None]] = ({}, {})
    for module, documentation in _documentation():
        is_dev = int(hashlib.sha256(module.encode()).hexdigest()[:8], 16) % DEV_MODULES == 0
        for text in paragraphs(documentation):
            sides[is_dev].setdefault(text)
    train, dev = sides
    return list(train), [text for text in dev if text not in train]


def paragraphs(documentation: str) -> list[str]:
    """The paragraphs of a documentation string that are sentences."""
    prose = []
    for block in re.split(r"\n\s*\n", documentation):
        lines = [line.strip() for line in block.splitlines()]
        text = " ".join(line for line in lines if line and not line.startswith(_NOT_PROSE))
        text = re.sub(r"\s+", " ", text).strip()
        letters = len(_LETTERS.findall(text))
        if MIN_WORDS <= len(text.split()) <= MAX_WORDS and letters >= 0.75 * len(text):
            prose.append(text)
    return prose


def _documentation() -> Iterator[tuple[str, str]]:
    """(module, one documentation string) of the standard library, then (topic, its text)."""
    root = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).parts
        if _SKIPPED.intersection(parts) or parts[0] in ("pydoc_data", "encodings"):
            continue
        module = ".".join(parts).removesuffix(".py").removesuffix(".__init__")
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError):
            continue  # templates and Python 2 leftovers, which some distributions ship
        for documentation in _docstrings(tree):
            yield module, documentation
    from pydoc_data.topics import topics

    for topic in sorted(topics):
        yield f"topics.{topic}", topics[topic]


def _docstrings(node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[str]:
    """The documentation string of a node, then of what is defined directly in it."""
    documentation = ast.get_docstring(node)
    if documentation:
        yield documentation
    for child in node.body:
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _docstrings(child)
