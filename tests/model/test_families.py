"""The table of families: what its rows name is in the stock classes, and no other file of the package names one."""

import ast
import dataclasses
import re
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
import torch
import transformers

import bertshrink
from bertshrink.errors import UserError
from bertshrink.model.encoder import Encoder
from bertshrink.model.families import FAMILIES, PretrainedFamily
from bertshrink.model.sizes.parameter_count import facts_of
from bertshrink.model.tasks import TASKS
from bertshrink.techniques.export.onnx import ExportWrapper
from bertshrink.techniques.factorize import Factorize
from bertshrink.techniques.share import Share
from tests.support.tiny import WORDS, bench_of, sentences, tiny_config, tiny_encoder

PACKAGE = Path(bertshrink.__file__).parent
FILES = sorted(set(PACKAGE.rglob("*.py")) - {PACKAGE / "model" / "families.py"})


def names_of_classes():
    """What the names of a family's classes in transformers begin with: `XLMRoberta`."""
    return {type(tiny_config(family)).__name__.removesuffix("Config") for family in FAMILIES}


def names_of_modules():
    """Every path in a row that leads through a module of a module, so that it could be nothing else."""
    found = set()
    for row in FAMILIES.values():
        for names in (row, row.embedding, row.layer, row.text_head, row.masked_head, row.pretraining):
            values = [] if names is None else [getattr(names, field.name) for field in dataclasses.fields(names)]
            found |= {value for value in values if isinstance(value, str) and "." in value}
    return found


def test_no_other_file_of_the_package_names_a_family_its_classes_or_its_modules():
    forbidden = set(FAMILIES) | names_of_modules()
    classes = re.compile(rf"({'|'.join(names_of_classes())})(Config|Model|For[A-Z]|Tokenizer)")
    for path in FILES:
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        used = {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
        assert not used & forbidden, path
        assert not [node.attr for node in nodes if isinstance(node, ast.Attribute) and classes.match(node.attr)], path


def test_the_search_for_names_knows_what_it_searches():
    assert {"Bert", "XLMRoberta", "DistilBert"} <= names_of_classes()
    assert {"attention.self.query", "lm_head.bias", "cls.seq_relationship"} <= names_of_modules()


@pytest.mark.parametrize("family", FAMILIES)
def test_every_module_that_a_row_names_is_in_the_stock_classes(family):
    row, base = FAMILIES[family], tiny_encoder(family, "embedding").model
    embedding = row.embedding
    tables = {embedding.words, embedding.positions, embedding.types, embedding.norm, embedding.projection, row.pooler}
    for name in tables - {None}:
        assert base.get_submodule(name)
    assert isinstance(base.get_submodule(row.layers), torch.nn.ModuleList)
    layer = base.get_submodule(row.path_of_layer(0))
    dense = [name for name in dataclasses.asdict(row.layer).values() if name in dict(layer.named_modules())]
    assert dense == list(dataclasses.asdict(row.layer).values())
    both = {f"{name}.{part}" for name in dense for part in ("weight", "bias")}
    assert both == set(layer.state_dict()), "a layer has no other weights"
    assert any(name.endswith(row.attention_dropout) for name, _ in base.named_modules())
    assert (base.config.model_type, base.base_model_prefix) == (family, row.base)
    for name in ("num_hidden_layers", "hidden_act", "hidden_dropout_prob", "attention_probs_dropout_prob"):
        assert hasattr(base.config, row.field(name))
    assert getattr(type(base.config)(), row.field("hidden_act")) == row.default_activation


@pytest.mark.parametrize("family", FAMILIES)
def test_every_head_that_a_row_names_is_in_the_stock_classes(family):
    row = FAMILIES[family]
    heads = {
        "classification": [row.text_head.first, row.text_head.last],
        "token-classification": [row.token_head],
        "question-answering": [row.answer_head],
        "mlm": [row.masked_head.first, row.masked_head.norm, row.masked_head.decoder, *row.masked_head.steps],
    }
    for task, names in heads.items():
        model = tiny_encoder(family, task).model
        for name in names:
            assert model.get_submodule(name), (task, name)
    assert row.masked_head.bias in dict(model.named_parameters(remove_duplicate=False))
    assert hasattr(model.config, row.text_head.dropout)
    if row.pretraining and row.pretraining.pair_head:
        whole = transformers.AutoModelForPreTraining.from_config(model.config)
        assert whole.get_submodule(row.pretraining.pair_head)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_steps_of_the_masked_head_are_the_head(family):
    encoder = tiny_encoder(family, "mlm")
    row, model = FAMILIES[family], encoder.model
    ids = torch.tensor([encoder.tokenize(sentences(1))[0]["input_ids"]])
    with torch.no_grad():
        states = getattr(model, row.base)(ids).last_hidden_state
        for step in row.masked_head.steps:
            states = model.get_submodule(step)(states)
        assert torch.equal(states, model(ids).logits)


def test_settings_choose_from_the_families_that_are_pretrained():
    assert get_args(PretrainedFamily) == tuple(name for name, row in FAMILIES.items() if row.pretraining)


@pytest.mark.parametrize("column", ["narrow_as", "narrow_text_head_as", "shared_as"])
def test_a_family_that_no_stock_class_continues_is_refused_before_anything_is_made(column, monkeypatch):
    monkeypatch.setitem(FAMILIES, "bert", replace(FAMILIES["bert"], **{column: None}))
    facts = facts_of(tiny_encoder("bert", "classification" if column == "narrow_text_head_as" else "mlm"))
    technique = Share() if column == "shared_as" else Factorize(rank=8)
    with pytest.raises(UserError, match=r"no stock class has .* and computes what BERT does") as caught:
        technique.fit(facts)
    assert "`distill`" in caught.value.hint


@pytest.mark.parametrize("column", ["narrow_as", "narrow_text_head_as", "shared_as"])
def test_what_a_family_becomes_is_a_family_with_the_part_that_is_wanted(column):
    for row in FAMILIES.values():
        target = FAMILIES[getattr(row, column)]
        assert target.embedding.projection
        assert target.is_shared or column == "narrow_text_head_as"


@pytest.mark.parametrize("adds_mask", [True, False])
def test_a_family_that_adds_no_mask_is_given_the_mask_of_tokens(adds_mask, monkeypatch):
    monkeypatch.setitem(FAMILIES, "bert", replace(FAMILIES["bert"], adds_mask=adds_mask))
    encoder, masks = tiny_encoder("bert", "classification"), []
    ids = torch.tensor([[2, 5, 3, 0]])
    with torch.no_grad():
        by_hand = encoder.model(ids, attention_mask=(ids > 0).long()).logits
        encoder.model.bert.register_forward_pre_hook(
            lambda module, args, given: masks.append(given["attention_mask"]), with_kwargs=True
        )
        logits = ExportWrapper(encoder, TASKS["classification"].outputs)(ids, (ids > 0).long())
    assert masks[0].shape == ((1, 1, 1, 4) if adds_mask else (1, 4))
    assert torch.allclose(logits, by_hand, atol=1e-6)


@pytest.mark.parametrize("family", ["xlm-roberta", "camembert"])
def test_a_stock_unigram_tokenizer_reads_the_same_ids_beside_every_class(family, tmp_path):
    row = FAMILIES[family]
    pieces = ["<s>", "<pad>", "</s>", "<unk>", *(f"▁{word}" for word in WORDS), *"abcdefghijklmnopqrstuvwxyz▁é"]
    vocab = [(piece, -float(at)) for at, piece in enumerate(pieces)]
    name = type(tiny_config(family)).__name__.removesuffix("Config")
    tokenizer = getattr(transformers, f"{name}Tokenizer")(vocab=vocab)
    special = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("pad", "bos", "eos")}
    more = special | {"max_position_embeddings": 64 + row.first_position(tokenizer.pad_token_id)}
    transformers.AutoModelForSequenceClassification.from_config(
        tiny_config(family, vocab_size=len(tokenizer), **more)
    ).save_pretrained(tmp_path / "m")
    tokenizer.save_pretrained(tmp_path / "m")
    encoder = Encoder.load(tmp_path / "m")
    texts = ["the good movie", "été"]
    ids = [encoded["input_ids"] for encoded in encoder.tokenize(texts)]
    assert ids == tokenizer(texts)["input_ids"]
    assert len(ids[1]) == 6 and tokenizer.unk_token_id not in ids[0] + ids[1]
    assert (encoder.max_length, encoder.labels) == (64, ("LABEL_0", "LABEL_1"))
    (tmp_path / "work").mkdir()
    narrow = Factorize(rank=8)(encoder, bench_of(encoder, tmp_path / "work"))
    narrow.save(tmp_path / "narrow")
    assert [encoded["input_ids"] for encoded in Encoder.load(tmp_path / "narrow").tokenize(texts)] == ids
