"""The whole road by recipes: fine-tune a teacher, distill it, on every task; what is reported, what is refused."""

import json
from pathlib import Path

import pytest

from bertshrink.errors import BertshrinkError, UserErrors
from bertshrink.files.atomic import verify
from bertshrink.model.encoder import Encoder
from bertshrink.model.tasks import TASKS
from bertshrink.pipeline.run import run
from bertshrink.progress import Silent
from bertshrink.recipe.plan import make_plan
from bertshrink.recipe.recipe import read_recipe
from tests.support.tiny import sentences, tiny_encoder, tiny_split

pytestmark = pytest.mark.training

TRAIN, DEV = 24, 12
FINETUNE = "finetune: {epochs: 1, precision: float32, learning_rate: 1.0e-3}"
DISTILL = "distill: {layers: 1, epochs: 1, precision: float32}"
HEAD = "model: ./m\nmeasure: {latency: false}\n"
FILES = {
    "token-classification": "conll",
    "question-answering": "json",
    "mlm": "txt",
}


def write(folder, task, rows, side, seed):
    """A side of the data in a format of its task's own."""
    split = tiny_split(task, rows, seed=seed)
    path = folder / f"{side}.{FILES.get(task, 'jsonl')}"
    if task == "token-classification":
        texts = zip(split.words, split.labels, strict=True)
        path.write_text("\n\n".join("\n".join(f"{w} {t}" for w, t in zip(*text, strict=True)) for text in texts) + "\n")
    elif task == "question-answering":
        triples = zip(split.texts, split.pairs, split.labels, strict=True)
        paragraphs = [
            {
                "context": context,
                "qas": [{"question": q, "answers": [{"text": a, "answer_start": at} for a, at in answers]}],
            }
            for q, context, answers in triples
        ]
        path.write_text(json.dumps({"data": [{"paragraphs": paragraphs}]}))
    elif task == "mlm":
        path.write_text("\n".join(sentences(rows, seed, shortest=8)) + "\n")
    elif TASKS[task].is_vector:
        second = sentences(rows, seed + 9)
        rows = [
            {"sentence1": a, "sentence2": b, "score": float(i % 6)}
            for i, (a, b) in enumerate(zip(split.texts, second, strict=True))
        ]
        path.write_text("\n".join(map(json.dumps, rows)))
    else:
        name = {"multi-label": "labels", "regression": "score"}.get(task, "label")
        rows = [{"text": a, name: b} for a, b in zip(split.texts, split.labels, strict=True)]
        path.write_text("\n".join(map(json.dumps, rows)))


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder to be in with a sentence encoder `m` and a classifier `c`."""
    monkeypatch.chdir(tmp_path)
    for name, task in (("m", "embedding"), ("c", "classification")):
        (tmp_path / name).mkdir()
        tiny_encoder(task=task, num_hidden_layers=2, initializer_range=0.05).save(tmp_path / name)
    return tmp_path


def data(here, task, name="d"):
    (here / name).mkdir()
    write(here / name, task, TRAIN, "train", seed=1)
    write(here / name, task, DEV, "dev", seed=2)


def carry_out(text, name="r"):
    Path(f"{name}.yaml").write_text(text)
    return run(make_plan(read_recipe(Path(f"{name}.yaml"))), Silent(), Path("runs"), "bertshrink run")


def faults_of(text):
    with pytest.raises(BertshrinkError) as caught:
        carry_out(text)
    return list(caught.value.faults) if isinstance(caught.value, UserErrors) else [caught.value]


# A teacher, then its student


@pytest.mark.parametrize("task", TASKS)
def test_a_teacher_and_its_student(here, task):
    data(here, task)
    text = f"{HEAD}data: ./d\ntask: {task}\nstages:\n  - {FINETUNE}\n  - {DISTILL}\n"
    finished = carry_out(text)
    report = finished.report
    assert [(s.name, s.role) for s in report.snapshots] == [
        ("01-finetune", "reference"),
        ("02-distill", "stage"),
        ("02-distill/untrained", "baseline"),
    ]
    assert report.task == task
    headline = "sts_spearman" if TASKS[task].is_vector else TASKS[task].headline
    assert all(s.find(headline) is not None for s in report.snapshots), "every row has the task's own metric"
    assert [s.facts["num_layers"] for s in report.snapshots] == [2, 1, 1]
    teacher, student = (Encoder.load(finished.folder / name) for name in ("01-finetune", "02-distill"))
    assert (teacher.task, student.task, student.labels) == (task, task, teacher.labels)
    assert verify(finished.folder / "02-distill")
    again = carry_out(text)
    assert again.report.snapshots == report.snapshots, "everything is already finished"


def test_a_sentence_encoder_is_taught_with_scores_and_distilled_on_single_texts(here):
    data(here, "embedding")
    finished = carry_out(f"{HEAD}data: ./d\ntask: embedding\nstages:\n  - {FINETUNE}\n  - {DISTILL}\n")
    notes = {s.name: " ".join(s.notes) for s in finished.report.snapshots}
    assert f"trained 1 epoch of {TRAIN} rows" in notes["01-finetune"]
    assert f"trained 1 epoch of {2 * TRAIN} rows" in notes["02-distill"], "both texts of every pair"


def test_scores_decide_what_is_found_finished(here):
    data(here, "embedding")
    text = f"{HEAD}data: ./d\ntask: embedding\nstages: [{{{FINETUNE}}}]\n"
    first = carry_out(text).key
    path = here / "d" / "train.jsonl"
    path.write_text(path.read_text().replace('"score": 5.0', '"score": 4.0'))
    assert carry_out(text).key != first


def test_a_recipe_of_one_teacher_reports_it_as_the_reference(here):
    data(here, "classification")
    finished = carry_out(f"{HEAD}data: ./d\ntask: classification\nstages: [{{{FINETUNE}}}]\n")
    (only,) = finished.report.snapshots
    assert (only.role, only.find("agreement").value) == ("reference", 1.0)
    assert finished.model.folder == finished.folder / "01-finetune"


def test_teacher_and_student_may_be_made_by_two_recipes(here):
    data(here, "classification")
    one = carry_out(f"{HEAD}data: ./d\ntask: classification\nstages:\n  - {FINETUNE}\n  - {DISTILL}\n")
    head = HEAD.replace("./m", str(one.folder / "01-finetune"))
    two = carry_out(f"{head}data: ./d\nstages: [{{{DISTILL}}}]", "two")
    first, second = (next(s for s in found.report.snapshots if s.role == "stage") for found in (one, two))
    for name in ("accuracy", "agreement"):
        assert first.find(name).value == second.find(name).value


def test_stages_that_make_the_teacher_go_before_those_that_shrink_it(here):
    data(here, "classification")
    (fault,) = faults_of(f"{HEAD}data: ./d\nstages:\n  - {DISTILL}\n  - {FINETUNE}\n".replace("./m", "./c"))
    assert "`finetune` makes a teacher" in fault.what
    assert fault.where == "r.yaml:6:5"


# Pre-training

PRETRAIN = "pretrain: {layers: 2, hidden_size: 16, heads: 2, vocab_size: 300, epochs: 1, tokens_per_row: 32}"


def test_from_text_to_a_distilled_encoder(here):
    data(here, "mlm")
    finished = carry_out(f"measure: {{latency: false}}\ndata: ./d\nstages:\n  - {PRETRAIN}\n  - {DISTILL}\n")
    assert [(s.name, s.role) for s in finished.report.snapshots][:2] == [
        ("01-pretrain", "reference"),
        ("02-distill", "stage"),
    ]
    data(here, "classification", "e")
    text = f"model: {finished.folder / '02-distill'}\nmeasure: {{latency: false}}\ndata: ./e\nstages: [{{{FINETUNE}}}]"
    taught = carry_out(text, "t").report
    assert taught.task == "classification"
    assert any("task: classification, from the data's labels" in note for note in taught.notes)


def test_a_recipe_without_a_model_begins_with_pretraining(here):
    data(here, "mlm")
    (fault,) = faults_of("data: ./d\nstages: [distill]")
    assert (fault.what, fault.where) == ("the recipe names no model to start from", "r.yaml:2:1")
    (fault,) = faults_of(f"model: ./m\ndata: ./d\nstages: [{{{PRETRAIN}}}]")
    assert "`pretrain` creates its own model, but the recipe names one" in fault.what


# Which task


@pytest.mark.parametrize("task", sorted(TASKS.keys() - {"embedding", "sparse-embedding", "mlm"}))
def test_the_task_is_told_by_the_data_and_noted(here, task):
    data(here, task)
    plan = make_plan(_recipe(f"{HEAD}data: ./d\nstages: [finetune]"))
    assert (plan.task, plan.notes[0]) == (task, f"task: {task}, from the data's labels")


def test_a_head_tells_the_task(here):
    data(here, "classification")
    plan = make_plan(_recipe("model: ./c\ndata: ./d\nstages: [finetune]"))
    assert plan.task == "classification"
    assert "from the model's own head" in plan.notes[0]


def test_a_task_that_cannot_be_told(here):
    (here / "t.txt").write_text("\n".join(sentences(40, 3)))
    (fault,) = faults_of(f"{HEAD}data: ./t.txt\nstages: [finetune]")
    assert "cannot infer the task" in fault.what
    assert "--task" in fault.hint


def test_a_checkpoint_of_another_class_can_be_taught(here):
    data(here, "classification")
    path = here / "c" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"architectures": ["BertForNextSentencePrediction"]}))
    text = f"model: ./c\nmeasure: {{latency: false}}\ndata: ./d\ntask: classification\nstages: [{{{FINETUNE}}}]"
    assert carry_out(text).report.task == "classification"


def test_length_of_sentences_binds_no_other_task(here):
    (here / "m" / "sentence_bert_config.json").write_text('{"max_seq_length": 16}')
    data(here, "classification")
    text = "model: ./m\ndata: ./d\nmeasure: {latency: {length: [48]}}\nstages: [finetune]\ntask: "
    assert make_plan(_recipe(text + "classification")).about.max_length == 64
    with pytest.raises(BertshrinkError, match="length 48 exceeds the limit of"):
        make_plan(_recipe(text + "embedding"))


def _recipe(text):
    Path("r.yaml").write_text(text)
    return read_recipe(Path("r.yaml"))


# Labels


@pytest.mark.parametrize(
    ("task", "kind", "what"),
    [
        ("token-classification", "classification", "have one label each"),
        ("classification", "multi-label", "have several labels each"),
        ("classification", "regression", "are labelled with scores"),
        ("regression", "classification", "the column holds scores"),
        ("question-answering", "classification", "needs answers"),
        ("embedding", "classification", "fine-tuned on pairs of texts"),
        ("classification", "mlm", "has no labels"),
    ],
)
def test_data_for_another_task_is_refused_before_anything_is_written(here, task, kind, what):
    data(here, kind)
    (fault,) = faults_of(f"{HEAD}data: ./d\ntask: {task}\nstages: [{{{FINETUNE}}}]")
    assert what in fault.what, fault
    assert fault.where
    assert not (here / "runs").exists()


def test_labels_that_the_teacher_does_not_know_name_both(here):
    data(here, "classification")
    path = here / "d" / "dev.jsonl"
    path.write_text(path.read_text().replace("negative", "sour"))
    (fault,) = faults_of(f"model: ./c\nmeasure: {{latency: false}}\ndata: ./d\nstages: [{{{DISTILL}}}]")
    assert "`sour` in the data, `negative`, `positive` in the teacher" in fault.what
    (fault,) = faults_of(f"{HEAD}data: ./d\ntask: classification\nstages: [{{{FINETUNE}}}]")
    assert "labels that its train split lacks: `sour`; there are `negative`, `positive`" in fault.what


def test_texts_without_labels_suffice_for_a_student(here):
    (here / "t.txt").write_text("\n".join(sentences(40, 3)))
    text = "model: ./c\nmeasure: {latency: false}\ndata: ./t.txt\nstages: [{%s}]"
    report = carry_out(text % DISTILL).report
    student = next(s for s in report.snapshots if s.role == "stage")
    assert student.find("agreement") is not None
    assert student.find("accuracy") is None
    alone = DISTILL.replace("}", ", soft_weight: 0, hidden_weight: 0, task_weight: 1}")
    (fault,) = faults_of(text % alone)
    assert "has no labels, which classification needs" in fault.what


@pytest.mark.parametrize("task", ["classification", "token-classification"])
def test_more_texts_without_labels_join_a_students_but_not_a_teachers_training(here, task):
    data(here, task)
    (here / "t.txt").write_text("\n".join(sentences(10, 7)))
    texts = f"data: {{path: ./d, unlabelled: ./t.txt, max_unlabelled: 7}}\ntask: {task}\n"
    finished = carry_out(f"{HEAD}{texts}stages:\n  - {FINETUNE}\n  - {DISTILL}\n")
    notes = {s.name: " ".join(s.notes) for s in finished.report.snapshots}
    assert "7 unlabelled rows were skipped" in notes["01-finetune"]
    assert f"trained 1 epoch of {TRAIN + 7} rows" in notes["02-distill"]


# Choosing


@pytest.mark.parametrize("task", ["classification", "embedding", "question-answering"])
def test_early_stopping_chooses_by_texts_that_do_not_judge(here, task, monkeypatch):
    data(here, task)
    write(here / "d", task, DEV, "test", seed=5)
    asked = []
    from bertshrink.meters.quality import evaluators

    real = evaluators.prepare

    def prepare(model, texts, max_length, seed, split=None, **more):
        asked.append(split)
        return real(model, texts, max_length, seed, split, **more)

    monkeypatch.setattr(evaluators, "prepare", prepare)
    stages = [FINETUNE, DISTILL]
    patient = [stage.replace("}", ", early_stopping_patience: 1, eval_steps: 1}") for stage in stages]
    finished = carry_out(f"{HEAD}data: ./d\ntask: {task}\nstages:\n  - {patient[0]}\n  - {patient[1]}\n")
    choosing = [split for split in asked if split is not None]
    assert len(choosing) == 2, "each stage asks once"
    assert len(asked) == 3
    assert all(len(split) == DEV for split in choosing)
    assert finished.report.data["test"] == DEV
    for snapshot in finished.report.snapshots[:2]:
        assert any("were best on the texts held out for choosing" in note for note in snapshot.notes)


def test_running_text_keeps_nothing_to_choose_by(here):
    data(here, "mlm")
    patient = FINETUNE.replace("}", ", early_stopping_patience: 1}")
    (fault,) = faults_of(f"{HEAD}data: ./d\ntask: mlm\nstages:\n  - {patient}\n")
    assert "`early_stopping_patience` of `finetune` needs a dev split" in fault.what
    assert fault.where.startswith("r.yaml:6:")
