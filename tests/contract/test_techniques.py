"""What every technique promises, over every family and task of the tables: each pair of these; with `--matrix` all."""

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest

from bertshrink.data.formats.corpus import Corpus
from bertshrink.files.atomic import new_folder
from bertshrink.model.artifact import Artifact
from bertshrink.model.encoder import Encoder
from bertshrink.model.families import FAMILIES
from bertshrink.model.model_ref import ModelRef
from bertshrink.model.round_trip import proof_answers, prove
from bertshrink.model.tasks import TASKS
from bertshrink.techniques import TECHNIQUES
from bertshrink.techniques.base import Workbench
from tests.support.families import CONVERTED, NARROWED, THINNED, serves
from tests.support.pairwise import matrix
from tests.support.tiny import sentences, tiny_encoder, tiny_pairs, tiny_texts

SETTINGS = {
    "pretrain": {"epochs": 1, "hidden_size": 16, "heads": 2, "layers": 2, "vocab_size": 400, "tokens_per_row": 16},
    "finetune": {"epochs": 1},
    "factorize": {"max_size": "1 GB"},
    "share": {"groups": 1, "steps": 2},
    "prune": {"keep": "60%"},
    "distill": {"layers": 1, "epochs": 1},
    "quantize": {"min_cosine": 0.5},
}
"""The least work; random weights quantize worse than trained ones; full width, which every task allows."""

FROM_NOTHING = [name for name, technique in TECHNIQUES.items() if not technique.takes]
FROM_A_MODEL = [name for name in TECHNIQUES if name not in FROM_NOTHING]


def there_is(name, family, task):
    """Whether the family has the task, and the technique a stock class to make of it."""
    return serves(family, task) and family in {"Factorize": NARROWED, "Share": CONVERTED, "Prune": THINNED}.get(
        TECHNIQUES[name].__name__, FAMILIES
    )


@pytest.fixture(scope="module", autouse=True)
def one_thread_for_all():
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def exported():
    """The tiny encoder of a family and task as an artifact, where one was exported already."""
    return {}


def bench_of(task, folder, teacher=None, raw=False):
    """All that a technique may use; `raw`: pairs of texts stay pairs, for what makes a teacher."""
    folder.mkdir(parents=True)
    texts = tiny_texts(task)
    if raw and TASKS[task].is_vector:
        texts = replace(texts, train=tiny_pairs(16, 1), dev=tiny_pairs(8, 2))
    return Workbench(texts, teacher, folder, task=task)


def small(family, task):
    return tiny_encoder(family, task, num_hidden_layers=2)


def given_to(technique, family, task, exported, folder):
    """A model of the kind that the technique takes: what makes a teacher takes one of another task."""
    if "encoder" not in technique.takes:
        encoder = small(family, task)
        found = exported.get((family, task))
        return found or TECHNIQUES["export"]()(encoder, bench_of(task, folder / "export", encoder))
    if technique.makes_teacher:
        return small(family, "mlm" if TASKS[task].is_vector else "embedding")
    return small(family, task)


def check(made, technique, before, folder):
    """The model as loaded again: of the kind that was promised, stock, finite, and the same as before."""
    assert isinstance(made, Encoder if technique.gives == "encoder" else Artifact)
    with new_folder(folder) as scratch:
        made.save(scratch)
        prove(
            made, ModelRef.read(scratch), technique.gives, proof_answers(before)
        )  # finite, same shapes, same numbers after a reload
    again = ModelRef.read(folder).load()
    assert (again.task, again.labels) == (made.task, made.labels)
    rows = again.tokenize(sentences(3))
    for mine, theirs in zip(again.predict(rows), made.predict(rows), strict=True):
        assert set(mine) == set(TASKS[made.task].outputs)
        for name in mine:
            assert np.allclose(mine[name], theirs[name], atol=1e-5)
    return again


@pytest.mark.slow
@matrix(("name", "family", "task"), FROM_A_MODEL, FAMILIES, TASKS, possible=there_is)
def test_result_is_stock_finite_and_equal_after_loading(name, family, task, tmp_path, exported):
    technique = TECHNIQUES[name](**SETTINGS.get(name, {}))
    model = given_to(technique, family, task, exported, tmp_path)
    teacher = None if technique.makes_teacher else small(family, task)
    before = answers(model)
    made = technique(model.copy(), bench_of(task, tmp_path / "work", teacher, raw=technique.makes_teacher))
    assert made.task == task
    assert set(made.labels) == (data_labels(task) if technique.makes_teacher else set(model.labels))
    again = check(made, technique, made if technique.makes_teacher else model, tmp_path / "out")
    if technique.name == "export":
        exported[family, task] = again
    assert np.array_equal(before, answers(model)), "the given model was left alone"


def answers(model):
    """The first numbers that an encoder gives of a text; nothing of an artifact, whose files never change in place."""
    if isinstance(model, Artifact):
        return []
    return next(iter(model.predict(model.tokenize(sentences(1)))[0].values()))


def data_labels(task):
    """The labels that the tiny data of a task has: one a row, or several."""
    labels = tiny_texts(task).train.labels if TASKS[task].has_labels else ()
    return {name for label in labels for name in ([label] if isinstance(label, str) else label)}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "family"),
    [
        (name, family)
        for name in FROM_NOTHING
        for family in get_args(TECHNIQUES[name].model_fields["family"].annotation)
    ],
)
def test_what_starts_from_nothing_is_stock_finite_and_equal_after_loading(name, family, tmp_path):
    technique = TECHNIQUES[name](family=family, **SETTINGS[name])
    file = tmp_path / "train.txt"
    file.write_text("\n\n".join("\n".join(sentences(6, seed)) for seed in range(12)), encoding="utf-8")
    bench = bench_of("mlm", tmp_path / "work")
    bench.texts = replace(bench.texts, corpus=Corpus((file,)))
    made = technique(None, bench)
    facts = technique.makes()
    shape = replace(made.shape, vocab_size=facts.shape.vocab_size)  # few words need no more tokens than there are
    assert (made.anatomy, made.task, shape) == (facts.anatomy, facts.task, facts.shape)
    check(made, technique, made, tmp_path / "out")
