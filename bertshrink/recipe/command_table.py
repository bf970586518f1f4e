"""The commands that make a model: which stages each one expands to, and which flag sets which stage's field.

A flag is a field's name with dashes (after its stage's name where the command says so); the field's description is its
help. Reading the table imports no technique.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bertshrink.techniques import TECHNIQUES

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

    from bertshrink.techniques.base import Technique


@dataclass(frozen=True)
class Command:
    """One command that makes a model.

    Attributes:
        name: as typed.
        help: its first line of help.
        stages: techniques in order; those before the last are left out where the model given is already what the next
            takes.
        later: techniques that follow where a flag of theirs is given.
        prefixed: techniques whose flags begin with their name.
        primary: what most people set; the help shows these first.
    """

    name: str
    help: str
    stages: tuple[str, ...]
    primary: tuple[str, ...]
    later: tuple[str, ...] = ()
    prefixed: tuple[str, ...] = ()

    @property
    def techniques(self) -> tuple[type[Technique], ...]:
        """The stages' settings classes, the later ones too."""
        return tuple(TECHNIQUES[name] for name in (*self.stages, *self.later))

    def flag_names(self, technique: type[Technique]) -> dict[str, str]:
        """Field of a stage -> name of what sets it; a field that an earlier stage has too is set together with it."""
        before = self.techniques[: self.techniques.index(technique)]
        taken = {field for other in before for field in other.model_fields}
        prefix = f"{technique.name}_" if technique.name in self.prefixed else ""
        return {field: field if field in taken else prefix + field for field in technique.model_fields}

    @property
    def panels(self) -> dict[str, str]:
        """What can be set -> its panel of the help page: the main stage's first, then those before and after it."""
        order = (self.stages[-1], *self.stages[:-1], *self.later)
        panel_by_name: dict[str, str] = {}
        for technique in map(TECHNIQUES.__getitem__, order):
            for field, name in self.flag_names(technique).items():
                panel_by_name.setdefault(name, technique.panel_of(field))
        return panel_by_name

    @property
    def fields(self) -> dict[str, FieldInfo]:
        """What can be set -> the field that describes it; of one that several stages have, the first stage's."""
        fields: dict[str, FieldInfo] = {}
        for technique in self.techniques:
            for field, name in self.flag_names(technique).items():
                fields.setdefault(name, technique.model_fields[field])
        return fields

    def wants(self, technique: type[Technique], given: Mapping[str, Any]) -> bool:
        """Whether a stage is asked for: it always is, or a flag is given that is its own."""
        before = self.techniques[: self.techniques.index(technique)]
        others = {name for other in before for name in self.flag_names(other).values()}
        own = set(self.flag_names(technique).values()) - others
        return technique.name not in self.later or bool(own & given.keys())


COMMANDS: dict[str, Command] = {
    command.name: command
    for command in (
        Command(
            "pretrain",
            "Pre-train an encoder from scratch on running text, with its tokenizer.",
            ("pretrain",),
            primary=("data", "family", "layers", "hidden_size", "output"),
        ),
        Command(
            "finetune",
            "Fine-tune an encoder on labelled texts.",
            ("finetune",),
            primary=("data", "task", "epochs", "learning_rate", "output"),
        ),
        Command(
            "factorize",
            "Factorize the embedding tables (and share layers) into a stock ALBERT.",
            ("factorize",),
            primary=("data", "rank", "max_size", "output", "dry_run"),
            later=("share", "distill"),
            prefixed=("share",),
        ),
        Command(
            "share",
            "Share weights between groups of layers, as ALBERT does.",
            ("share",),
            primary=("data", "groups", "method", "measure", "output"),
        ),
        Command(
            "prune",
            "Remove attention heads and feed-forward neurons (and train the rest).",
            ("prune",),
            primary=("data", "keep", "method", "output", "dry_run"),
            later=("distill",),
        ),
        Command(
            "distill",
            "Distill a smaller student from its teacher.",
            ("distill",),
            primary=("data", "layers", "epochs", "measure", "output"),
        ),
        Command(
            "export",
            "Export an encoder to ONNX, .ort or ExecuTorch, verified against PyTorch.",
            ("export",),
            primary=("to", "precision", "static_shape", "measure", "output"),
        ),
        Command(
            "quantize",
            "Quantize an encoder or an exported artifact.",
            ("export", "quantize"),
            primary=("data", "scheme", "max_metric_drop", "auto", "output"),
        ),
    )
}


def flag_of(field: str) -> str:
    """`--learning-rate` for `learning_rate`."""
    return "--" + field.replace("_", "-")
