"""A model of a run: where it is, what decides it, and itself once something needs it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from bertshrink.model.checkpoint import CheckpointInfo
from bertshrink.model.loading import load_model

if TYPE_CHECKING:
    from bertshrink.model.loading import Model


@dataclass
class ModelHandle:
    """One model.

    Attributes:
        name: of the stage that made it, or of what was given.
        key: the fingerprint of what decides it.
        facts: what its folder says, where a task was named that it does not say itself.
        source: its name, for messages.
        loaded: itself.
    """

    name: str
    folder: Path
    key: str
    facts: CheckpointInfo | None = None
    source: str | None = None
    loaded: Model | None = field(default=None, repr=False)

    def load(self) -> Model:
        """The model, loaded once; of an encoder, nobody may change what is there, so its weights can be let go."""
        if self.loaded is None:
            self.loaded = load_model(self.folder, self.facts, self.source, is_lasting=True)
        return self.loaded
