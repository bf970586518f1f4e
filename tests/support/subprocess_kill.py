"""Training that dies in the middle."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from bertshrink.training.callback import TrainingCallback


class Killed(Exception):
    """What a training dies of here."""


@contextmanager
def killed_after(step: int) -> Iterator[None]:
    """Whatever trains within dies at the end of that step, before it can write anything."""
    went_on = TrainingCallback.on_step_end

    def killed(self, args, state, control, **more):
        if state.global_step == step:
            raise Killed
        return went_on(self, args, state, control, **more)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(TrainingCallback, "on_step_end", killed)
        yield
