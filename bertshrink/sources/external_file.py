"""A file from elsewhere: what was seen of it when it was looked at, and what is beside it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertshrink.files.json_files import read_object
from bertshrink.model.folder.sentence_modules import Sentence, read_sentence
from bertshrink.sources.probe_process import ProbeResult


@dataclass(frozen=True)
class ExternalFile:
    """What is known of a file: the look at it, the copies of what is beside it, its name for messages."""

    look: ProbeResult
    papers: Path
    where: str

    @property
    def config(self) -> dict[str, Any]:
        """config.json; empty where there is none."""
        path = self.papers / "config.json"
        return read_object(path) if path.is_file() else {}

    @property
    def sentence(self) -> Sentence | None:
        """What sentence-transformers says beside it; its modules count where the file does not do their work itself."""
        return read_sentence(self.papers, self.config, has_modules_inside="sentence_embedding" in self.look.outputs)


@dataclass(frozen=True)
class PositionRule:
    """How a model counts positions.

    Attributes:
        first: the position of a sequence's first token.
        follows_padding: whether padding is not counted, and stands at `first` - 1, which is also its token's id.
    """

    first: int
    follows_padding: bool
