"""The table of families: what its rows name is in the stock classes, and no file but the table's names one."""

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
from bertshrink.model.sizes.encoder_dims import EncoderDims
from bertshrink.model.sizes.parameter_count import facts_of
from bertshrink.model.tasks import TASKS
from bertshrink.techniques.factorize import Factorize
from bertshrink.techniques.share import Share
from bertshrink.training.loop import drop_dropout
from tests.support.families import CONVERTED, serves
from tests.support.tiny import WORDS, bench_of, sentences, tiny_config, tiny_encoder

PACKAGE = Path(bertshrink.__file__).parent
TABLE = sorted((PACKAGE / "model" / "families").glob("*.py"))
FILES = sorted(set(PACKAGE.rglob("*.py")) - {*TABLE, PACKAGE / "model" / "family.py"})


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


def test_no_file_of_the_package_but_the_table_names_a_family_its_classes_or_its_modules():
    forbidden = set(FAMILIES) | names_of_modules()
    assert len(TABLE) > 4
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
    types = embedding.types if getattr(base.config, "type_vocab_size", 0) else None
    positions = embedding.positions if row.has_positions(base.config.to_dict()) else None
    for name in {embedding.words, positions, types, embedding.norm, row.pooler} - {None}:
        assert base.get_submodule(name) is not None, name
    assert isinstance(base.get_submodule(row.layers), torch.nn.ModuleList)
    assert base.get_submodule(row.path_of_layer(0))
    assert (base.config.model_type, base.base_model_prefix) == (family, row.base)
    for name in ("num_hidden_layers", "hidden_act"):
        assert hasattr(base.config, row.field(name))
    assert getattr(type(base.config)(), row.field("hidden_act")) == row.default_activation
    if row.kinds_of_layers is not None:
        assert len(getattr(base.config, row.kinds_of_layers)) == 4


@pytest.mark.parametrize("family", FAMILIES)
def test_a_projection_of_tables_is_where_the_row_says(family):
    row = FAMILIES[family]
    if row.embedding.projection is None:
        pytest.skip("its tables are as wide as its layers")
    for width, has_one in ((16, True), (32, row.embedding.always_projects)):
        size = {row.field("embedding_size"): width}
        base = tiny_encoder(family, "embedding", **size).model
        paths = {name for name, module in base.named_modules() if module is not None}
        assert (row.embedding.projection in paths) == has_one


@pytest.mark.parametrize("family", [name for name, row in FAMILIES.items() if row.layer is not None])
def test_the_modules_of_a_layer_hold_all_of_its_weights(family):
    row, base = FAMILIES[family], tiny_encoder(family, "embedding").model
    config = base.config.to_dict()
    for number in range(row.is_shared + 1, 2 + row.is_shared):
        layer = base.get_submodule(row.path_of_layer(number - 1 if row.first_layer_norms else number))
        weights = {f"{path}.weight" for path in row.layer.modules()}
        biases = {f"{path}.bias" for path, roles in row.layer.modules().items() if row.has_bias(roles[0], config)}
        assert set(layer.state_dict()) == weights | biases
        for path, roles in row.layer.modules().items():
            rows = layer.get_submodule(path).weight.shape[0]
            each = {"widen": 64, "gate": 64}
            assert rows == sum(each.get(role, 32) for role in roles), path


@pytest.mark.parametrize("family", FAMILIES)
def test_the_dropout_of_attention_is_where_the_row_says(family):
    field = FAMILIES[family].field("attention_probs_dropout_prob")
    base = tiny_encoder(family, "embedding", **{field: 0.25}).model
    assert drop_dropout(base, FAMILIES[family].attention_dropout)
    assert not drop_dropout(base, FAMILIES[family].attention_dropout)


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
        if not serves(family, task):
            auto = getattr(transformers, TASKS[task].auto_class)
            with pytest.raises(ValueError, match="Unrecognized configuration class"):
                auto.from_config(tiny_config(family))
            continue
        model = tiny_encoder(family, task).model
        first = [] if row.first_of_heads is None else [row.first_of_heads]
        for name in {*names, *first} - {None}:
            assert model.get_submodule(name), (task, name)
    bias = dict(model.named_parameters(remove_duplicate=False)).get(str(row.masked_head.bias))
    assert (bias is None) == (row.masked_head.bias is None)
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert tied == row.ties_words
    if row.pretraining and row.pretraining.pair_head:
        whole = transformers.AutoModelForPreTraining.from_config(model.config)
        assert whole.get_submodule(row.pretraining.pair_head)


@pytest.mark.parametrize("family", CONVERTED)
def test_what_is_carried_over_to_another_family_has_the_names_of_the_row(family):
    row, config = FAMILIES[family], tiny_config(family)
    for name in (row.text_head.dropout, *map(row.field, ("hidden_dropout_prob", "attention_probs_dropout_prob"))):
        assert hasattr(config, name)


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
        target = FAMILIES.get(getattr(row, column))
        if target is not None:
            assert target.embedding.projection
            assert target.is_shared or column == "narrow_text_head_as" or target is row


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


@pytest.mark.parametrize(
    ("config", "number"),
    [
        ({}, 6),
        ({"pos_att_type": ["c2p"]}, 4),
        ({"pos_att_type": "p2c|c2p"}, 6),
        ({"pos_att_type": []}, 2),
        ({"relative_attention": False}, 2),
    ],
)
def test_products_with_distances_are_those_of_the_kinds_that_there_are(config, number):
    config = tiny_config("deberta-v2", **config)
    assert EncoderDims.read(FAMILIES["deberta-v2"], config.to_dict()).num_scores == number
