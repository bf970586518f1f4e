"""Pre-training: tokenizers, models of every family from the text alone, both losses by hand, resume, settings."""

import builtins
import inspect
import json
import re
from typing import get_args

import pytest
import torch
import transformers
from pydantic import ValidationError
from torch.nn import functional

from bertshrink.data.encoding import IGNORED
from bertshrink.data.formats.corpus import Corpus
from bertshrink.data.load import load_corpus
from bertshrink.data.settings import DataSettings
from bertshrink.errors import UserError
from bertshrink.model import families
from bertshrink.model.encoder import Encoder
from bertshrink.progress import Silent
from bertshrink.techniques.base import Workbench
from bertshrink.techniques.distill import Distill
from bertshrink.techniques.pretrain import Pretrain
from bertshrink.techniques.pretrain.apply import (
    PretrainingTask,
    as_masked_model,
    make_model,
    masked_logits,
    train_tokenizer,
)
from bertshrink.training.checkpoint_integrity import CHECKPOINTS
from tests.support.subprocess_kill import killed_after
from tests.support.tiny import sentences, tiny_encoder

pytestmark = pytest.mark.training

FAMILIES = get_args(Pretrain.model_fields["family"].annotation)
TINY = {"layers": 2, "hidden_size": 32, "heads": 2, "embedding_size": 16, "vocab_size": 400, "tokens_per_row": 24}


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """Documents in which one word follows another: there is something to learn."""
    folder = tmp_path_factory.mktemp("text")
    for side, number in (("train", 60), ("dev", 10)):
        documents = (
            "\n".join(f"{line}. the {line.split()[0]} was there" for line in sentences(6, seed))
            for seed in range(number)
        )
        (folder / f"{side}.txt").write_text("\n\n".join(documents), encoding="utf-8")
    return load_corpus(DataSettings(path=str(folder)))


def bench_of(texts, folder, **more):
    folder.mkdir(parents=True, exist_ok=True)
    return Workbench(texts, None, folder, task="mlm", **more)


def batch_of(model, pairs=None, length=12, rows=3):
    """Random ids, some of them padding, a few of them chosen."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(5, model.config.vocab_size, (rows, length), generator=generator)
    mask = torch.ones_like(ids)
    mask[0, 8:] = 0
    labels = torch.full_like(ids, IGNORED)
    labels[:, [1, 4]] = torch.tensor([7, 9])
    batch = {"input_ids": ids, "attention_mask": mask, "labels": labels, "rows": torch.arange(rows)}
    return batch | ({} if pairs is None else {"pairs": torch.tensor(pairs)})


def made(family, **more):
    torch.manual_seed(0)
    settings = Pretrain(family=family, **TINY | more)
    return make_model(settings, 100, 0).eval(), settings


@pytest.mark.parametrize("family", FAMILIES)
def test_the_head_on_masked_tokens_alone_is_the_whole_heads(family):
    model, settings = made(family)
    batch = batch_of(model)
    labels = batch["labels"]
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        out = model(**inputs)
        logits = out["prediction_logits"] if settings.second_objective else out["logits"]
        base = getattr(model, {"distilbert": "distilbert"}.get(family, family))
        found = masked_logits(model, base(**inputs).last_hidden_state[labels != IGNORED])
    assert torch.allclose(found, logits[labels != IGNORED], atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_losses_equal_those_of_stock_transformers(family):
    """The stock models' own sum of losses, where they have one, and each part by hand."""
    model, settings = made(family)
    pairs = [0, 1, 1] if settings.second_objective else None
    batch = batch_of(model, pairs)
    stock = {name: batch[name] for name in ("input_ids", "attention_mask", "labels")}
    if pairs is not None:
        second = "next_sentence_label" if family == "bert" else "sentence_order_label"
        stock[second] = batch["pairs"]
    with torch.no_grad():
        out = model(**stock)
        loss, parts = PretrainingTask(model, settings.second_objective)(**dict(batch))
    assert float(loss) == pytest.approx(float(out.loss), abs=1e-5)
    assert set(parts) == ({"mlm", settings.second_objective} if pairs is not None else {"mlm"})
    assert float(sum(parts.values())) == pytest.approx(float(loss), abs=1e-6)
    if pairs is not None:
        logits = out.seq_relationship_logits if family == "bert" else out.sop_logits
        by_hand = functional.cross_entropy(logits, batch["pairs"])
        assert float(parts[settings.second_objective]) == pytest.approx(float(by_hand), abs=1e-6)


def test_a_batch_without_masks_costs_nothing_and_has_gradients():
    model, _ = made("roberta")
    batch = batch_of(model)
    batch["labels"].fill_(IGNORED)
    loss, _ = PretrainingTask(model, None)(**batch)
    loss.backward()
    assert float(loss.detach()) == 0


@pytest.mark.parametrize("family", ["bert", "albert"])
def test_the_kept_model_predicts_as_the_trained_one(family):
    model, _ = made(family)
    kept = as_masked_model(model)
    ids = torch.randint(5, 100, (2, 9), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.equal(kept(ids).logits, model(ids).prediction_logits)
    assert type(kept).__name__ == kept.config.architectures[0] == f"{family.capitalize()}ForMaskedLM"
    assert kept.get_output_embeddings().weight is kept.get_input_embeddings().weight


@pytest.mark.parametrize("kind", ["wordpiece", "byte-bpe"])
@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_tokenizers_cut_what_they_join_again(family, kind, texts):
    tokenizer = train_tokenizer(Pretrain(family=family, tokenizer=kind, **TINY), texts.corpus)
    first, last = tokenizer.cls_token_id, tokenizer.sep_token_id
    ids = tokenizer("The day was there")["input_ids"]
    assert (ids[0], ids[-1]) == (first, last) and tokenizer.unk_token_id not in ids[1:-1] and len(tokenizer) <= 400
    joined = tokenizer.decode(ids, skip_special_tokens=True)
    assert joined == ("the day was there" if kind == "wordpiece" else "The day was there")
    pair = tokenizer("the day", "was there")
    plain = tokenizer("the day", add_special_tokens=False)["input_ids"]
    second = tokenizer("was there", add_special_tokens=False)["input_ids"]
    between = [last, last] if family == "roberta" else [last]
    assert pair["input_ids"] == [first, *plain, *between, *second, last]
    assert ("token_type_ids" in pair) == (family == "bert")
    if family == "bert":
        assert pair["token_type_ids"] == [0] * (len(plain) + 2) + [1] * (len(second) + 1)
    else:
        assert (first, tokenizer.pad_token_id, last) == (0, 1, 2)


@pytest.mark.parametrize("kind", ["wordpiece", "byte-bpe"])
def test_a_vocabulary_is_a_function_of_the_text(kind, tmp_path):
    """A run that goes on, and every process of several, trains the tokenizer again."""
    file = tmp_path / "train.txt"
    file.write_text("\n\n".join(inspect.getdoc(kind) or "" for kind in vars(builtins).values()), encoding="utf-8")
    settings = Pretrain(tokenizer=kind, **TINY | {"vocab_size": 1000})
    first, *others = (train_tokenizer(settings, Corpus((file,))) for _ in range(4))
    assert len(first) == 1000
    assert all(other.get_vocab() == first.get_vocab() for other in others)
    assert len(first.backend_tokenizer.get_added_tokens_decoder()) == 5, "pieces of words are not tokens of their own"


def test_capitals_are_kept_where_asked(texts):
    tokenizer = train_tokenizer(Pretrain(lowercase=False, **TINY), texts.corpus)
    assert tokenizer.tokenize("day") != tokenizer.tokenize("DAY")


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_learns_and_loads_by_stock_transformers(family, texts, tmp_path):
    settings = Pretrain(family=family, epochs=3, learning_rate=5e-3, batch_size=8, **TINY)
    bench = bench_of(texts, tmp_path / "work")
    encoder = settings(None, bench)
    curve = [entry["mlm"] for entry in bench.history]
    assert sum(curve[-5:]) / 5 < 0.85 * curve[0], "something was learnt"
    second = {"bert": "nsp", "albert": "sop"}.get(family)
    assert all((second in entry) == (second is not None) for entry in bench.history)
    encoder.save(tmp_path / "out")
    stock, info = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    ids = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")("the day was there", return_tensors="pt")
    with torch.no_grad():
        assert torch.equal(stock(**ids).logits, encoder.model(**ids).logits)
    again = Encoder.load(tmp_path / "out")
    assert (again.task, again.max_length, again.anatomy.family) == ("mlm", 512, family)
    assert len(again.tokenize(["word " * 600])[0]["input_ids"]) == 512
    longest = {"input_ids": torch.full((1, 512), 6), "attention_mask": torch.ones(1, 512, dtype=torch.long)}
    with torch.no_grad():
        assert bool(torch.isfinite(again.model(**longest).logits).all()), "the positions reach as far as it says"


def test_training_that_was_cut_goes_on_to_the_same_weights(texts, tmp_path):
    settings = Pretrain(epochs=1, batch_size=8, save_steps=5, **TINY)
    whole = settings(None, bench_of(texts, tmp_path / "whole"))

    bench = bench_of(texts, tmp_path / "cut")
    with killed_after(8):
        settings(None, bench)
    assert [folder.name for folder in (bench.work / CHECKPOINTS).glob("checkpoint-*")] == ["checkpoint-5"]
    bench.notes.clear()
    resumed = settings(None, bench)
    assert "resumed from the checkpoint of step 5" in bench.notes
    for (name, one), (_, other) in zip(
        whole.model.state_dict().items(), resumed.model.state_dict().items(), strict=True
    ):
        assert torch.equal(one, other), name


def test_stops_early_and_keeps_the_best(texts, tmp_path):
    judged = []

    def choose(model):
        assert isinstance(model, Encoder) and model.task == "mlm"
        judged.append(model.model.state_dict()["cls.predictions.bias"].clone())
        return [0.1, 0.3, 0.2, 0.2][len(judged) - 1]

    settings = Pretrain(epochs=3, batch_size=8, eval_steps=3, early_stopping_patience=2, **TINY)
    bench = bench_of(texts, tmp_path / "work", choose=choose)
    encoder = settings(None, bench)
    assert len(judged) == 4 and any("the weights of step 6 were best" in note for note in bench.notes)
    assert torch.equal(encoder.model.state_dict()["cls.predictions.bias"], judged[1])


def test_the_student_of_a_masked_language_model_reads_packed_rows(texts, tmp_path):
    teacher = tiny_encoder("bert", "mlm")
    bench = bench_of(texts, tmp_path / "work", max_length=32)
    bench.teacher = teacher
    student = Distill(layers=2, epochs=0.2)(teacher.copy(), bench)
    assert student.shape.num_layers == 2
    note = next(note for note in bench.notes if "packed to full length" in note)
    assert "soft 5, task 2, hidden 1" in note
    rows, tokens = map(int, re.findall(r"(\d+) (?:rows|tokens)", note))
    assert tokens == 32 * rows


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hidden_size": 30}, "is not divisible by 4 `heads`"),
        ({"family": "roberta", "objective": "mlm+nsp"}, "needs two segments"),
        ({"family": "bert", "objective": "mlm+sop"}, "is ALBERT's"),
        ({"family": "albert", "objective": "mlm+nsp"}, "is BERT's"),
        ({"vocab_size": 10}, "256"),
        ({"steps": 3}, "steps"),
    ],
)
def test_settings_that_do_not_go_together(settings, message):
    with pytest.raises(ValidationError, match=message):
        Pretrain(**settings)


def test_objectives_by_family():
    assert {family: Pretrain(family=family).second_objective for family in FAMILIES} == {
        "bert": "nsp",
        "roberta": None,
        "distilbert": None,
        "albert": "sop",
    }
    assert [row.family for row in families.FAMILIES.values() if row.pretraining] == list(FAMILIES)
    assert Pretrain(objective="mlm").second_objective is None
    settings = Pretrain(family="roberta", whole_word=True)
    assert Pretrain.model_validate(json.loads(settings.model_dump_json())) == settings


def test_data_that_is_no_running_text(tmp_path):
    with pytest.raises(UserError, match="needs running text"):
        Pretrain(**TINY)(None, Workbench(None, None, tmp_path, progress=Silent()))
