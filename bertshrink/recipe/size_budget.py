"""Whether a recipe's stages end within the sizes that they are limited to, told from sizes before anything is made."""

from __future__ import annotations

from bertshrink import units
from bertshrink.errors import UserError
from bertshrink.files.headers import read_onnx
from bertshrink.model.artifact import ArtifactCard
from bertshrink.model.checkpoint_info import CheckpointInfo
from bertshrink.model.model_ref import ModelRef
from bertshrink.model.sizes.size_estimate import TOLERANCE, Sizes, of_encoder, of_file
from bertshrink.recipe.recipe import Recipe
from bertshrink.recipe.size_options import advice
from bertshrink.techniques.base import Technique


class Fitting:
    """The sizes of a recipe's model on its way through the stages.

    Args:
        model: the first one; None: there is none, or it cannot be read.
        about: what the plan takes it for.
    """

    def __init__(self, recipe: Recipe, model: ModelRef | None, about: CheckpointInfo | ArtifactCard | None) -> None:
        self._name = recipe.model or "MODEL"
        self._is_asked = any(stage.technique.largest_size is not None for stage in recipe.stages)
        self._sizes: Sizes | None = None
        if self._is_asked and isinstance(about, CheckpointInfo):
            self._sizes = of_encoder(about)
        elif self._is_asked and isinstance(about, ArtifactCard) and about.format == "onnx" and model is not None:
            self._sizes = of_file(read_onnx(model.file), about.family)
        self._first = self._sizes

    def after(self, technique: Technique, facts: CheckpointInfo | None) -> None:
        """Go through a stage; `facts` are of the encoder that comes out, if one does.

        Raises:
            UserError: the file that comes out is larger than the stage's limit, however it chooses.
        """
        if not self._is_asked:
            return
        if self._sizes is not None:
            self._sizes = technique.sizes(self._sizes)
        elif facts is not None and technique.gives == "encoder":
            self._first = self._sizes = of_encoder(facts)
        limit = technique.largest_size
        if limit is not None and self._sizes is not None and self._sizes.num_bytes > limit * (1 + TOLERANCE):
            least = units.format(self._sizes.num_bytes, "B")
            what = f"`max_size` is {units.format(limit, 'B')}; the smallest file of `{technique.name}` takes {least}"
            raise UserError(what, setting="max_size")

    def advised(self, error: UserError, technique: Technique) -> UserError:
        """The same error; one about a size names what would get there."""
        limit = technique.largest_size
        if limit is not None and self._first is not None and error.setting == "max_size":
            roads = advice(self._first.facts or self._first, self._name, limit)
            error.hint = roads if error.hint is None else f"{error.hint}: {roads}"
        return error
