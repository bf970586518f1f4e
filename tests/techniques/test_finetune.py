"""Fine-tuning: heads on base weights, what is learnt, what is refused."""

from dataclasses import replace

import pytest
import torch
import transformers
from torch.nn import functional

from bertshrink.data.labels.checks import check_texts
from bertshrink.data.labels.labels import labels_of
from bertshrink.data.texts import Split, TextDataset
from bertshrink.engines.torch_session import pool
from bertshrink.errors import UserError
from bertshrink.model.encoder import Encoder
from bertshrink.model.tasks import TASKS
from bertshrink.techniques.base import Workbench
from bertshrink.techniques.finetune import Finetune
from bertshrink.techniques.finetune.apply import TaskObjective, learn, training_rows, with_head
from bertshrink.techniques.finetune.settings import BASE_WIDTH, MOST_EPOCHS, RATES
from bertshrink.training.losses import in_batch_contrastive
from tests.support.pairwise import matrix
from tests.support.tiny import sentences, tiny_encoder, tiny_split, tiny_texts

TINY = Finetune(epochs=1, learning_rate=1e-3, batch_size=8, precision="float32")


def bench_of(tmp_path, task, texts=None, **more):
    return Workbench(texts or tiny_texts(task), None, tmp_path / "work", cache=tmp_path / "cache", task=task, **more)


def pairs(num, seed=0, scored=True):
    """Pairs of texts whose score is the share of words that they have in common."""
    first, second = sentences(num, seed), sentences(num, seed + 50)
    second = [b if i % 2 else a for i, (a, b) in enumerate(zip(first, second, strict=True))]
    scores = tuple(5.0 * (i % 2 == 0) for i in range(num)) if scored else None
    return Split(tuple(first), pairs=tuple(second), labels=scores)


def base_of(encoder):
    return encoder.model if TASKS[encoder.task].is_bare else getattr(encoder.model, encoder.anatomy.base)


# The head


OTHERS = [*TASKS][1:] + [*TASKS][:1]
"""The tasks, each in the place of another: one case of each is then no task that begins with itself."""


@pytest.mark.slow
@matrix(("start", "task"), TASKS, OTHERS, strength=1)
def test_any_checkpoint_can_learn_any_task(tmp_path, start, task):
    model = tiny_encoder("bert", start)
    texts = TextDataset("p", pairs(8), pairs(4, 9)) if TASKS[task].is_vector else tiny_texts(task)
    made = with_head(model, bench_of(tmp_path, task, texts))
    assert type(made.model) is type(tiny_encoder("bert", task).model), "a stock class"
    old, new = base_of(model).state_dict(), base_of(made).state_dict()
    assert all(torch.equal(old[name], value) for name, value in new.items() if name in old)
    assert all("pooler" in name for name in new if name not in old), "only the pooler may be new"
    (tmp_path / "m").mkdir()
    made.save(tmp_path / "m")
    again = Encoder.load(tmp_path / "m")
    assert (again.task, again.labels) == (task, made.labels), "the folder tells its task by itself"
    rows = made.tokenize(["good film", "bad film"])
    for mine, theirs in zip(made.predict(rows), again.predict(rows), strict=True):
        for name in TASKS[task].outputs:
            assert mine[name] == pytest.approx(theirs[name], abs=1e-5)


@matrix(
    ("family", "task"),
    ["roberta", "distilbert", "albert", "electra"],
    ["classification", "question-answering", "mlm"],
    strength=1,
)
def test_heads_of_every_family(tmp_path, family, task):
    for start in ("embedding", "regression"):
        model = tiny_encoder(family, start)
        made = with_head(model, bench_of(tmp_path, task))
        old, new = base_of(model).state_dict(), base_of(made).state_dict()
        assert all(torch.equal(old[name], value) for name, value in new.items() if name in old)
        made.predict(made.tokenize(["good film"]))


def test_a_head_of_the_same_classes_is_kept(tmp_path):
    model = tiny_encoder()
    before = model.model.classifier.weight.clone()
    turned = replace(tiny_texts("classification"), train=Split(("a", "b"), labels=("Positive", "Negative")))
    for texts in (tiny_texts("classification"), turned):
        bench = bench_of(tmp_path, "classification", texts)
        made = with_head(model, bench)
        assert torch.equal(made.model.classifier.weight, before)
        assert made.labels == ("negative", "positive")
        assert bench.notes == ["the model's own head was kept"]


def test_other_classes_get_a_new_head_that_is_noted(tmp_path):
    texts = TextDataset("d", Split(("a", "b", "c"), labels=("x", "y", "z")), Split(("a",), labels=("x",)))
    bench = bench_of(tmp_path, "classification", texts, seed=3)
    made = with_head(tiny_encoder(), bench)
    assert made.labels == ("x", "y", "z")
    assert bench.notes == [
        "a new head for classification with 3 labels (x, y, z) was added to the weights of `tiny-bert`"
    ]
    again = with_head(tiny_encoder(), bench_of(tmp_path, "classification", texts, seed=3))
    other = with_head(tiny_encoder(), bench_of(tmp_path, "classification", texts, seed=4))
    assert torch.equal(made.model.classifier.weight, again.model.classifier.weight), "the seed decides"
    assert not torch.equal(made.model.classifier.weight, other.model.classifier.weight)


def test_a_pooler_that_was_not_there_is_noted(tmp_path):
    bench = bench_of(tmp_path, "classification")
    with_head(tiny_encoder(task="mlm"), bench)
    assert bench.notes[0].endswith("; the 2 weights of the pooler are also new")


def test_a_sentence_encoder_gives_up_its_layout_with_its_task(tmp_path):
    model = replace(tiny_encoder(task="embedding"), max_length=32, sentence_folder=tmp_path)
    made = with_head(model, bench_of(tmp_path, "classification"))
    assert (made.sentence_folder, made.pooling, made.max_length) == (None, None, 64)
    kept = with_head(model, bench_of(tmp_path, "embedding", TextDataset("p", pairs(4), pairs(4))))
    assert (kept.sentence_folder, kept.max_length) == (tmp_path, 32)
    roberta = replace(tiny_encoder("roberta", "embedding"), max_length=32, sentence_folder=tmp_path)
    assert with_head(roberta, bench_of(tmp_path, "classification")).max_length == 64, "positions start after the pad id"


def test_tags_are_ordered_and_come_from_all_sides():
    rows = [("B-X", "O"), ("O", "I-X"), ("B-A", "O")]
    texts = TextDataset("t", *(Split(("a b",), words=(("a", "b"),), labels=(row,)) for row in rows))
    assert labels_of(texts, "token-classification") == ("O", "B-A", "B-X", "I-X")


# What is learnt


def fresh_loss(encoder, split, task):
    """The task's loss by transformers' own heads."""
    batch = encoder.tokenizer(list(split.texts), padding=True, return_tensors="pt")
    labels = [encoder.model.config.label2id[label] for label in split.labels] if task == "classification" else None
    if task == "regression":
        labels = list(split.labels)
    if task == "multi-label":
        labels = [[float(name in row) for name in encoder.labels] for row in split.labels]
    with torch.no_grad():
        return float(encoder.model(**batch, labels=torch.tensor(labels)).loss)


@pytest.mark.training
@pytest.mark.parametrize("task", ["classification", "multi-label", "regression"])
def test_the_loss_is_the_one_that_transformers_computes(tmp_path, task):
    texts = tiny_texts(task)
    bench = bench_of(tmp_path, task, texts)
    model = with_head(tiny_encoder(task="embedding"), bench)
    rows, collate = training_rows(model, TINY, bench)
    loss, parts = TaskObjective(model.model, task, None)(**collate([rows[i] for i in range(len(rows))]))
    assert parts == {}
    assert loss.item() == pytest.approx(fresh_loss(model, texts.train, task), rel=1e-5)


@pytest.mark.training
@pytest.mark.parametrize("task", TASKS)
def test_every_task_is_learnt(tmp_path, task):
    texts = TextDataset("p", pairs(48), pairs(8, 9)) if TASKS[task].is_vector else tiny_texts(task, num_train=48)
    bench = bench_of(tmp_path, task, texts)
    model = with_head(tiny_encoder(task="mlm", num_hidden_layers=2, initializer_range=0.05), bench)
    rows, collate = training_rows(model, TINY, bench)
    batch = collate([rows[i] for i in range(len(rows))])

    def loss():
        with torch.no_grad():
            return float(TaskObjective(model.model.eval(), task, model.pooling)(**batch)[0])

    before = loss()
    settings = TINY.model_copy(update={"epochs": 6.0, "learning_rate": 3e-3, "dropout": False})
    assert learn(model, settings, bench) is model
    assert loss() < 0.9 * before
    assert bench.history
    assert any(note.startswith("trained 6 epochs of") for note in bench.notes)
    assert not model.model.training


def test_the_rate_follows_task_and_width():
    plain = Finetune()
    for task in TASKS:
        assert plain.rate(task, BASE_WIDTH, 10**6) == RATES[task]
        assert plain.rate(task, 384, 10**6).learning_rate == 2 * RATES[task].learning_rate
    assert Finetune(learning_rate=1e-3, epochs=7).rate("mlm", 384, 10) == replace(
        RATES["mlm"], epochs=7, learning_rate=1e-3
    )


def test_few_texts_take_as_many_epochs_as_make_enough_steps():
    plain = Finetune()
    for num_rows, epochs in ((1, MOST_EPOCHS), (240, MOST_EPOCHS), (800, 6), (5_000, 3)):
        assert plain.rate("classification", BASE_WIDTH, num_rows).epochs == epochs
    assert plain.rate("mlm", BASE_WIDTH, 10).epochs == RATES["mlm"].epochs, "masks are new in every epoch"
    assert Finetune(epochs=2).rate("classification", BASE_WIDTH, 10).epochs == 2, "what is asked for is done"


# Pairs


@pytest.mark.training
def test_scored_pairs_learn_the_cosine_of_their_stretched_score(tmp_path):
    split = pairs(6)
    bench = bench_of(tmp_path, "embedding", TextDataset("p", split, split))
    model = tiny_encoder(task="embedding")
    rows, collate = training_rows(model, TINY, bench)
    assert [label for _, label, *_ in (rows[i] for i in range(6))] == [1.0, 0.0] * 3
    loss, _ = TaskObjective(model.model, "embedding", model.pooling)(**collate([rows[i] for i in range(6)]))

    def vectors(texts):
        batch = model.tokenizer(list(texts), padding=True, return_tensors="pt")
        return pool(model.model(**batch).last_hidden_state, batch["attention_mask"], "mean", True)

    cosines = functional.cosine_similarity(vectors(split.texts), vectors(split.pairs))
    wanted = torch.tensor(split.labels) / 5
    assert loss.item() == pytest.approx(((cosines - wanted) ** 2).mean().item(), rel=1e-4)


@pytest.mark.training
def test_pairs_without_scores_are_told_apart_from_the_rest_of_their_batch(tmp_path):
    first, second = (functional.normalize(torch.randn(5, 8), dim=1) for _ in range(2))
    slow = sum(
        -float((20 * first[i] @ second[i]) - torch.logsumexp(torch.stack([20 * first[i] @ b for b in second]), 0))
        for i in range(5)
    )
    assert float(in_batch_contrastive(first, second)) == pytest.approx(slow / 5, rel=1e-5)
    bench = bench_of(tmp_path, "embedding", TextDataset("p", pairs(6, scored=False), pairs(4)))
    model = tiny_encoder(task="embedding")
    rows, collate = training_rows(model, TINY, bench)
    batch = collate([rows[i] for i in range(6)])
    assert batch["input_ids"].shape[0] == 12
    assert TaskObjective(model.model, "embedding", model.pooling)(**batch)[0].item() > 0


# What is left out, and what is refused


@pytest.mark.training
def test_rows_without_a_label_are_left_out_and_noted(tmp_path):
    texts = tiny_texts("classification")
    labels = tuple(None if i % 4 == 0 else label for i, label in enumerate(texts.train.labels))
    texts = replace(texts, train=replace(texts.train, labels=labels))
    bench = bench_of(tmp_path, "classification", texts)
    rows, _ = training_rows(tiny_encoder(), TINY, bench)
    assert (len(rows), bench.notes) == (12, ["4 unlabelled rows were skipped"])


@pytest.mark.training
def test_with_patience_the_texts_that_choose_are_not_learnt_from(tmp_path):
    texts = tiny_texts("classification", num_train=64)
    bench = bench_of(tmp_path, "classification", texts)
    kept, choosing = texts.choosing()
    assert 0 < len(choosing) < 32
    settings = TINY.model_copy(update={"early_stopping_patience": 1})
    assert len(training_rows(tiny_encoder(), settings, bench)[0]) == len(kept) == 64 - len(choosing)
    assert len(training_rows(tiny_encoder(), TINY, bench)[0]) == 64


@pytest.mark.training
def test_patience_stops_and_keeps_the_best(tmp_path):
    bench = bench_of(tmp_path, "classification", tiny_texts("classification", num_train=64))
    seen = []

    def choose(model):
        assert not model.model.training
        seen.append(torch.cat([value.flatten() for value in model.model.state_dict().values() if value.dim()]).clone())
        return -float(len(seen))  # the first judging is the best

    bench.choose = choose
    settings = TINY.model_copy(update={"epochs": 8.0, "early_stopping_patience": 2, "eval_steps": 2})
    model = learn(tiny_encoder(), settings, bench)
    assert len(seen) == 3
    end = torch.cat([value.flatten() for value in model.model.state_dict().values() if value.dim()])
    assert torch.equal(end, seen[0])
    assert any("the weights of step 2 were best" in note for note in bench.notes)


def both(train, dev=None):
    return TextDataset("d", train, dev or train)


LISTS = Split(("a b", "c"), labels=(("x",), ("y", "x")))
CLASSES = Split(("a b", "c"), labels=("x", "y"))
REFUSED = {
    "one label per row": ("multi-label", both(CLASSES), "have one label each"),
    "no tags": ("token-classification", both(CLASSES), "have one label each"),
    "many labels a row": ("classification", both(LISTS), "several labels each"),
    "scores for classes": ("classification", both(Split(("a", "b"), labels=(0.5, 3.25))), "labelled with scores"),
    "names for scores": ("regression", both(CLASSES), "`x`, which is not a number"),
    "no answers": ("question-answering", both(replace(CLASSES, pairs=("e", "f"))), "needs answers"),
    "one class": ("classification", both(Split(("a", "b"), labels=("x", "x"))), "there is nothing to learn from them"),
    "nothing labelled": ("classification", both(Split(("a", "b"))), "has no labels, which classification needs"),
    "label in dev alone": (
        "classification",
        both(CLASSES, Split(("a", "b"), labels=("x", "new"))),
        "the dev split of `d` has labels that its train split lacks: `new`; there are `x`, `y`",
    ),
    "no pairs": ("embedding", both(Split(("a", "b"))), "has none"),
    "pairs with classes": ("embedding", both(replace(CLASSES, pairs=("e", "f"))), "classes such as `x`"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_data_that_is_none_for_the_task_is_refused_before_anything_is_trained(name):
    task, texts, what = REFUSED[name]
    with pytest.raises(UserError) as caught:
        check_texts(texts, task, None, needs_labels=Finetune().needs_labels(task))
    assert what in caught.value.what, caught.value.what
    assert caught.value.hint


@pytest.mark.parametrize("task", ["classification", "multi-label", "token-classification"])
def test_labels_that_the_teacher_does_not_have_name_both_maps(task):
    texts = tiny_texts(task)
    own = labels_of(texts, task)
    with pytest.raises(UserError) as caught:
        check_texts(texts, task, ("left", "right"), needs_labels=False)
    assert "`left`, `right` in the teacher" in caught.value.what
    assert any(f"`{label}`" in caught.value.what for label in own)


@pytest.mark.training
def test_masks_are_for_masked_language_models(tmp_path):
    tiny_encoder().save(tmp_path)
    from bertshrink.model.checkpoint_info import read_facts

    with pytest.raises(UserError, match="`whole_word` is set, but only a masked language model"):
        Finetune(whole_word=True).fit(read_facts(tmp_path))
    assert Finetune(whole_word=True).fit(replace(read_facts(tmp_path), task="mlm")).task == "mlm"


@pytest.mark.training
def test_stock_transformers_reads_the_teacher(tmp_path):
    bench = bench_of(tmp_path, "token-classification", tiny_texts("token-classification"))
    made = learn(with_head(tiny_encoder(task="embedding"), bench), TINY, bench)
    (tmp_path / "m").mkdir()
    made.save(tmp_path / "m")
    stock = transformers.AutoModelForTokenClassification.from_pretrained(tmp_path / "m")
    assert tuple(stock.config.id2label.values()) == ("O", "B-PER")
    split = tiny_split("token-classification", 2)
    batch = made.tokenizer(list(split.texts), padding=True, return_tensors="pt")
    with torch.no_grad():
        assert torch.equal(stock.eval()(**batch).logits, made.model(**batch).logits)
