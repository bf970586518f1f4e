"""A file from elsewhere: what was seen of it when it was looked at, and what is beside it.

`transformers.exporters` writes beside its file an export.json: components, each with its file and the class that was
traced. A model that was never published has no class in its config.json; there it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertshrink.files.json_files import read_object
from bertshrink.model.folder.sentence_modules import Sentence, read_sentence
from bertshrink.sources.probe_process import ProbeResult

EXPORT = "export.json"
"""What `transformers.exporters` writes beside its file."""


@dataclass(frozen=True)
class ExternalFile:
    """What is known of a file: the look at it, the copies of what is beside it, its name for messages."""

    look: ProbeResult
    papers: Path
    where: str

    @property
    def config(self) -> dict[str, Any]:
        """config.json, with the class that export.json names where it names none; empty where neither is there."""
        path = self.papers / "config.json"
        config = read_object(path) if path.is_file() else {}
        traced = self._traced_class()
        return config if config.get("architectures") or traced is None else config | {"architectures": [traced]}

    def _traced_class(self) -> str | None:
        path = self.papers / EXPORT
        components = read_object(path).get("components") if path.is_file() else None
        for one in components.values() if isinstance(components, dict) else ():
            if isinstance(one, dict) and one.get("file") == Path(self.where).name:
                about = one.get("metadata")
                name = about.get("architecture") if isinstance(about, dict) else None
                return name if isinstance(name, str) else None
        return None

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
