"""What every technique promises, over every family and task of the tables."""

import numpy as np
import pytest

from bertshrink.model.anatomy import FAMILIES
from bertshrink.model.artifact import Artifact
from bertshrink.model.encoder import Encoder
from bertshrink.model.files import new_folder
from bertshrink.model.proof import load_model, prove
from bertshrink.model.task import TASKS
from bertshrink.techniques import TECHNIQUES
from bertshrink.techniques.base import Workbench
from tests.tiny import sentences, tiny_encoder, tiny_texts

SETTINGS = {"distill": {"layers": 2, "epochs": 1}, "quantize": {"min_cosine": 0.5}}
"""The least work; random weights quantize worse than trained ones."""


def bench_of(teacher, folder):
    folder.mkdir(parents=True)
    return Workbench(tiny_texts(teacher.task), teacher, folder)


def given_to(technique, family, task, folder):
    """A model of the kind that the technique takes."""
    encoder = tiny_encoder(family, task)
    if technique.takes == "encoder":
        return encoder
    return TECHNIQUES["export"]()(encoder.copy(), bench_of(encoder, folder / "export"))


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", TECHNIQUES)
def test_result_is_stock_finite_and_equal_after_loading(name, family, task, tmp_path):
    technique = TECHNIQUES[name](**SETTINGS.get(name, {}))
    model = given_to(technique, family, task, tmp_path)
    teacher = tiny_encoder(family, task)
    made = technique(model.copy(), bench_of(teacher, tmp_path / "work"))
    assert isinstance(made, Encoder if technique.gives == "encoder" else Artifact)
    with new_folder(tmp_path / "out") as scratch:
        made.save(scratch)
        prove(made, scratch, technique.gives, model)  # finite, same shapes, same numbers after a reload
    again = load_model(tmp_path / "out")
    assert again.task == task
    rows = again.tokenize(sentences(3))
    for mine, theirs in zip(again.predict(rows), made.predict(rows), strict=True):
        for name in TASKS[task].outputs:
            assert np.allclose(mine[name], theirs[name], atol=1e-5)
