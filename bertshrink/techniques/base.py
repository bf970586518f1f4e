"""What a technique is, and all that it may use.

A technique is a frozen settings object that can be called: model in, smaller model out. Its fields are at once the
recipe's keys, the command's flags, the help text, the JSON Schema and the resume key. Importing one imports no torch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict

from bertshrink import units
from bertshrink.errors import UserError
from bertshrink.progress import Progress, Silent

if TYPE_CHECKING:
    from bertshrink.data.texts import TextDataset
    from bertshrink.model.artifact import Artifact, ArtifactSpec
    from bertshrink.model.checkpoint_info import CheckpointInfo
    from bertshrink.model.encoder import Encoder
    from bertshrink.model.model_ref import Kind, Model
    from bertshrink.model.sizes.size_estimate import Sizes
    from bertshrink.report.measurement import Measurement
    from bertshrink.training.loop import TrainingResult

Need = Literal["teacher", "train", "dev"]


def is_share(text: str | None) -> str | None:
    """A setting that is a share such as `98%`, or none. Raises ValueError: it is something else."""
    if text is not None:
        units.share(text)
    return text


def is_size(text: str | None) -> str | None:
    """A setting that is a size such as `70 MB`, or none. Raises ValueError: it is something else."""
    if text is not None:
        units.size(text)
    return text


@dataclass
class Workbench:
    """All that a technique may use besides the model it is given.

    Attributes:
        texts: the recipe's data; None when the recipe names none.
        teacher: the model that all others are compared with.
        work: a folder for what must survive a kill (checkpoints) and for scratch; the pipeline clears it when the
            stage is stored.
        cache: a folder for what may be read again by other stages and runs (teacher outputs); None: keep nothing.
        task: what the model is trained for: a name in `TASKS`.
        max_length: cap on tokens per text; None: the model's own.
        choose: the headline metric of a model on texts kept for choosing, higher is better: what early stopping reads,
            so that the texts that a report is about choose nothing. None: there is nothing to choose by.
        measure: latency and memory of artifacts, interleaved, in fresh processes on this machine, by name; as
            `meters.latency.measure` gives them. None: nothing can be timed.
        unload: lets the weights of the model that was given go, for a technique that needs only its configuration and
            tokenizer from then on; does nothing where it lies nowhere else.
        notes: what the technique did, one sentence each; shown in the report.
        history: training log for the report's curves: one dict of numbers per entry, with `step`.
        baselines: (name, label, model) shown beside the result; size and quality are measured when the stage ends.
    """

    texts: TextDataset | None
    teacher: Encoder | None
    work: Path
    cache: Path | None = None
    task: str = ""
    seed: int = 0
    max_length: int | None = None
    progress: Progress = field(default_factory=Silent)
    choose: Callable[[Model], float] | None = None
    measure: Callable[[Mapping[str, Artifact]], dict[str, list[Measurement]]] | None = None
    unload: Callable[[], None] = lambda: None
    notes: list[str] = field(default_factory=list)
    history: list[dict[str, float]] = field(default_factory=list)
    baselines: list[tuple[str, str, Model]] = field(default_factory=list)

    def note(self, sentence: str) -> None:
        """Say in the report what was done or seen."""
        self.notes.append(sentence)

    def record(self, outcome: TrainingResult) -> None:
        """Keep a training's curves and what it has to say."""
        self.history += outcome.history
        self.notes += outcome.notes

    def baseline(self, name: str, label: str, model: Model) -> None:
        """Show `model` beside the stage's result in the report."""
        self.baselines.append((name, label, model))


class Technique(BaseModel, ABC):
    """One way to make a model smaller.

    A subclass states `name` (the recipe's key), `paper` (as `arXiv:1910.01108`, or a documentation page), what it
    `takes` and `gives`, and describes every field.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True)

    name: ClassVar[str]
    paper: ClassVar[str]
    takes: ClassVar[tuple[Kind, ...]]
    """The kinds of model that can go in; none: it starts from nothing."""
    gives: ClassVar[Kind]
    trains: ClassVar[bool] = False
    """Whether it trains, which several processes can do together."""
    makes_teacher: ClassVar[bool] = False
    """Whether it makes the model that others are compared with, instead of making that one smaller."""
    other_names: ClassVar[Mapping[str, str]] = {}
    """What a setting is called elsewhere -> its name here, for hints."""

    panels: ClassVar[Mapping[str, str]] = {}
    """A setting -> its panel of the help page, where that is not the technique's name."""

    @classmethod
    def panel_of(cls, field: str) -> str:
        """The panel of the help page that a setting is shown in."""
        return cls.panels.get(field, cls.name.capitalize())

    @property
    def depends_on_machine(self) -> bool:
        """Whether another machine may make something else with these settings: then it is part of the resume key."""
        return False

    def needs(self) -> frozenset[Need]:
        """What must be there besides the model; may depend on the settings."""
        return frozenset()

    def makes(self) -> CheckpointInfo:
        """The facts of what comes out of a technique that takes nothing."""
        raise TypeError(f"`{self.name}` does not start from nothing")

    def needs_labels(self, task: str) -> bool:
        """Whether it learns from labels and from nothing else, for a task."""
        return False

    def fit(self, facts: CheckpointInfo) -> CheckpointInfo:
        """Prove that the settings fit a model like this, before any weight is loaded.

        Returns:
            the facts of the model that will come out (for a following stage's proof).

        Raises:
            UserError: they do not; `where` left empty, the plan fills in the setting's place in the recipe.
        """
        return facts

    def form(self, before: ArtifactSpec | None) -> ArtifactSpec:
        """Prove that the settings fit an artifact like this, before anything is made; for techniques that give one.

        Args:
            before: the artifact that goes in; None: an encoder does.

        Returns:
            what comes out.

        Raises:
            UserError: it cannot be made of such a file; `where` left empty, as in `fit`.
        """
        from bertshrink.model.artifact import ArtifactSpec

        if before is not None and before.format != "onnx":
            raise UserError(
                f"`{self.name}` reads ONNX files, and gets an .{before.format} file here",
                hint="let it work on the ONNX file, and make other files of its result",
            )
        return before or ArtifactSpec()

    def extras(self) -> frozenset[str]:
        """The engines, names in `engines.ENGINES`, that it needs beyond what the extra `ml` brings."""
        return frozenset()

    @property
    def largest_size(self) -> float | None:
        """The most bytes that the file of what comes out may take; None: no limit was named."""
        return None

    def sizes(self, before: Sizes) -> Sizes | None:
        """The sizes of what comes out, the smallest where the settings leave a choice; None: they is unknown.

        An encoder's follow from its facts; what gives an artifact says what it changes.
        """
        if before.facts is None or self.gives != "encoder":
            return None
        from bertshrink.model.sizes.size_estimate import of_encoder

        return replace(of_encoder(self.fit(before.facts)), kept=before.kept)

    def scratch_bytes(self, before: Sizes) -> int:
        """Bytes of the files that it writes besides its result while it works."""
        return 0

    def promise(self, before: CheckpointInfo, after: CheckpointInfo) -> str:
        """What the stage buys, as a sentence that is told before it runs; empty: nothing that could be known."""
        return ""

    def explain(self, model: Any, bench: Workbench) -> list[dict[str, Any]]:
        """Rows of a table, each a setting and what it would give; empty: there is nothing to compare. Nothing is made.

        Of the columns `bytes` and `parameters` are counts, `energy` and `cosine` shares of 1.
        """
        return []

    @abstractmethod
    def label(self) -> str:
        """The stage in a few words, for tables: `distill to 3 layers`."""

    @abstractmethod
    def __call__(self, model: Any, bench: Workbench) -> Model:
        """Make the model. The given one is the technique's own copy, which it may change; None where it takes nothing.

        Raises:
            CheckFailed: the result is not what it must be; nothing is published.
        """
