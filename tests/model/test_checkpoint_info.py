"""What a model folder says of itself, and what is refused before anything of it is loaded."""

import json
import struct

import numpy as np
import pytest
from safetensors.numpy import save_file

from bertshrink.data.labels.labels import map_labels
from bertshrink.errors import UnsafeModel, UserError
from bertshrink.files.atomic import new_folder
from bertshrink.model.checkpoint_info import check_weights, read_facts
from bertshrink.model.families import FAMILIES
from bertshrink.model.folder.pooling import Pooling
from bertshrink.model.tasks import read_labels
from tests.support.model_folders import CLASSES, model_folder


@pytest.fixture
def folder(tmp_path):
    return model_folder(tmp_path / "m")


def write(folder, name, value):
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(value))


# What it says


def test_the_sizes_and_labels(folder):
    facts = read_facts(folder)
    assert (facts.anatomy, facts.task, facts.labels) == (FAMILIES["bert"], "classification", ("negative", "positive"))
    assert (facts.shape.num_layers, facts.shape.hidden_size, facts.max_length) == (4, 32, 64)
    assert facts.pooling is None


@pytest.mark.parametrize(
    ("head", "task"),
    [
        ("ForSequenceClassification", "classification"),
        ("Model", "embedding"),
        ("ForMaskedLM", "mlm"),
        ("ForPreTraining", "mlm"),
    ],
)
def test_the_task_is_told_by_the_class(folder, head, task):
    assert read_facts(model_folder(folder, head=head)).task == task
    assert read_facts(folder, "mlm").task == "mlm", "a task that was named wins"


def test_distilberts_own_words(folder):
    sizes = {"n_layers": 6, "dim": 48, "n_heads": 3, "hidden_dim": 96, "num_hidden_layers": None, "hidden_size": None}
    shape = read_facts(model_folder(folder, "distilbert", **sizes)).shape
    assert (shape.num_layers, shape.hidden_size, shape.num_heads, shape.intermediate_size) == (6, 48, 3, 96)


@pytest.mark.parametrize(
    ("family", "files", "longest"),
    [
        ("bert", {}, 64),
        ("roberta", {}, 62),
        ("roberta-pad-0", {}, 63),
        ("bert", {"tokenizer_config.json": {"model_max_length": 32}}, 32),
        ("bert", {"tokenizer_config.json": {"model_max_length": 1e30}}, 64),
        ("bert", {"tokenizer_config.json": {"model_max_length": 10**30}}, 64),
        ("bert", {"tokenizer_config.json": {"model_max_length": 32.0}}, 32),
        ("bert", {"tokenizer_config.json": {"model_max_length": None}}, 64),
        ("bert", {"tokenizer_config.json": {"max_len": 32}}, 32),
        ("bert", {"tokenizer_config.json": {"max_len": 32, "model_max_length": 48}}, 48),
        ("bert", {"tokenizer_config.json": {"model_max_length": -1}}, 64),
        ("bert", {"tokenizer_config.json": {}}, 64),
        ("roberta", {"tokenizer_config.json": {"model_max_length": 64}}, 62),
        ("bert", {"sentence_bert_config.json": {"max_seq_length": 16}}, 16),
        ("bert", {"sentence_bert_config.json": {"max_seq_length": None}}, 64),
    ],
)
def test_the_longest_input(folder, family, files, longest):
    name, _, pad_id = family.partition("-pad-")
    model_folder(folder, name, pad_token_id=int(pad_id) if pad_id else None)
    for name, content in files.items():
        write(folder, name, content)
    assert read_facts(folder).max_length == longest


TRANSFORMER = {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}
POOLING = {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}
NORMALIZE = {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"}
NEW = {**POOLING, "type": "sentence_transformers.sentence_transformer.modules.pooling.Pooling"}


@pytest.mark.parametrize(
    ("modules", "config", "pooling"),
    [
        ([TRANSFORMER, POOLING, NORMALIZE], {"pooling_mode_mean_tokens": True}, Pooling("mean", True)),
        ([TRANSFORMER, POOLING], {"pooling_mode_cls_token": True}, Pooling("cls", False)),
        ([TRANSFORMER, POOLING], {"pooling_mode_max_tokens": True}, Pooling("max", False)),
        ([TRANSFORMER, NEW, NORMALIZE], {"pooling_mode": "cls", "embedding_dimension": 32}, Pooling("cls", True)),
        ([TRANSFORMER, NEW], {"pooling_mode": "max"}, Pooling("max", False)),
        ([TRANSFORMER, POOLING], {}, Pooling("mean", False)),
        (
            [TRANSFORMER, POOLING],
            {"word_embedding_dimension": 32, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True},
            Pooling("mean", False),
        ),
    ],
)
def test_pooling_as_sentence_transformers_states_it(folder, modules, config, pooling):
    write(folder, "modules.json", modules)
    write(folder, "1_Pooling/config.json", config)
    facts = read_facts(folder)
    assert (facts.task, facts.pooling, facts.sentence.kind) == ("embedding", pooling, "encoder")
    assert read_facts(folder, "mlm").sentence is None


def test_pooling_that_nobody_stated(folder):
    facts = read_facts(model_folder(folder, head="Model"))
    assert (facts.pooling, facts.sentence) == (Pooling("mean", True), None)


@pytest.mark.parametrize(
    ("modules", "config", "message"),
    [
        ([TRANSFORMER, POOLING], {"pooling_mode": "median"}, "is not supported"),
        ([TRANSFORMER, POOLING], {"pooling_mode_attention": True}, "is not supported"),
        ([TRANSFORMER, {"type": "sentence_transformers.models.CNN", "path": "2_CNN"}], {}, "`CNN` is not"),
        ([{**TRANSFORMER, "path": "0_Transformer"}], {}, "is in `0_Transformer/`"),
    ],
)
def test_unsupported_pooling(folder, modules, config, message):
    write(folder, "modules.json", modules)
    write(folder, "1_Pooling/config.json", config)
    with pytest.raises(UserError, match=message):
        read_facts(folder)


# What is refused


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", {"auto_map": {"AutoModel": "evil.Model"}}, "auto_map"),
        ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["evil.T", None]}}, "auto_map"),
        ("config.json", {"attn_implementation": "somebody/kernel"}, "kernel `somebody/kernel`"),
        ("config.json", {"transformers_weights": "other.bin"}, "names other weights"),
        ("tokenizer_config.json", [1], "is not a JSON object"),
        ("config.json", [1], "is not a JSON object"),
        ("config.json", None, "is not a JSON object"),
        ("modules.json", {"a": 1}, "is not a list of modules"),
        ("modules.json", ["a"], "is not a list of modules"),
        ("modules.json", [{**POOLING, "path": "../../../etc"}], "points outside the model's folder"),
        ("modules.json", [{**POOLING, "path": "/etc"}], "points outside the model's folder"),
        ("modules.json", [TRANSFORMER, POOLING], "`config.json` cannot be read"),
        ("sentence_bert_config.json", [], "is not a JSON object"),
    ],
)
def test_folders_that_are_refused(folder, name, content, message):
    if isinstance(content, dict) and name == "config.json":
        content = json.loads((folder / "config.json").read_text()) | content
    write(folder, name, content)
    with pytest.raises(UnsafeModel, match=message) as caught:
        read_facts(folder)
    assert caught.value.where
    assert caught.value.hint


@pytest.mark.parametrize("length", ["32", True, [32]])
def test_a_length_that_is_not_a_number(folder, length):
    write(folder, "tokenizer_config.json", {"model_max_length": length})
    with pytest.raises(UnsafeModel, match=r"`model_max_length` of tokenizer_config.json is `.*`, not a number"):
        read_facts(folder)


@pytest.mark.parametrize(
    ("classes", "hint"),
    [
        (["BertForSequenceClassification"], '`"model_type": "bert"`'),
        (["BertModel"], '`"model_type": "bert"`'),
        (["RobertaForMaskedLM"], '`"model_type": "roberta"`'),
        (["XLMRobertaForTokenClassification"], '`"model_type": "xlm-roberta"`'),
        (["DistilBertModel"], '`"model_type": "distilbert"`'),
        (["BertGenerationEncoder"], "write its `model_type`: bert, "),
        (["BertForMaskedLM", "RobertaForMaskedLM"], "write its `model_type`: bert, "),
        (None, "write its `model_type`: bert, "),
    ],
)
def test_a_configuration_that_names_no_family(folder, classes, hint):
    model_folder(folder, None, architectures=classes)
    with pytest.raises(UserError, match="names no `model_type`") as caught:
        read_facts(folder)
    assert hint in caught.value.hint


def test_a_family_that_counts_positions_from_padding_and_has_none(folder):
    config = json.loads((model_folder(folder, "roberta") / "config.json").read_text())
    write(folder, "config.json", config | {"pad_token_id": None})
    with pytest.raises(UserError, match="is null, and RoBERTa counts positions from it"):
        read_facts(folder)
    write(folder, "config.json", config | {"pad_token_id": None, "model_type": "bert"})
    assert read_facts(folder).max_length == 64


def test_a_language_model_is_no_base_model(folder):
    with pytest.raises(UserError, match="`BertLMHeadModel`, belongs to no task"):
        read_facts(model_folder(folder, architectures=["BertLMHeadModel"]))


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000])
@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "modules.json"])
def test_damaged_json_is_refused(folder, name, content):
    (folder / name).write_bytes(content)
    with pytest.raises(UnsafeModel, match=f"`{name}` cannot be read"):
        read_facts(folder)


def weights(folder, **arrays):
    save_file(arrays or {"a": np.ones((2, 3), np.float32), "b": np.ones(5, np.float16)}, folder / "model.safetensors")
    return folder / "model.safetensors"


def test_the_header_of_good_weights(folder):
    weights(folder)
    assert {name: entry["shape"] for name, entry in check_weights(folder).items()} == {"a": [2, 3], "b": [5]}


@pytest.mark.parametrize(
    "name", ["pytorch_model.bin", "pytorch_model.bin.index.json", "model.bin", "pytorch_model.pt", "model.pt"]
)
def test_a_pickle_is_refused_unread(folder, name):
    (folder / name).write_bytes(b"cos\nsystem\n(S'touch owned'\ntR.")
    with pytest.raises(UnsafeModel, match="are a pickle") as caught:
        check_weights(folder)
    assert "save_pretrained" in caught.value.hint
    weights(folder)
    assert check_weights(folder), "a pickle beside safetensors is never touched"


def test_no_weights(folder):
    with pytest.raises(UserError, match="has no weights"):
        check_weights(folder)


def header(spans, extra=0):
    text = json.dumps({n: {"dtype": "F32", "shape": [1], "data_offsets": list(span)} for n, span in spans.items()})
    return struct.pack("<Q", len(text)) + text.encode() + bytes(8 + extra)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "truncated"),
        (b"abc", "truncated"),
        (struct.pack("<Q", 2**63) + b"{}", "truncated"),
        (struct.pack("<Q", 2) + b"[]", "unreadable"),
        (struct.pack("<Q", 4) + b"null", "unreadable"),
        (struct.pack("<Q", 3) + b"\xff\xfe{", "unreadable"),
        (struct.pack("<Q", 8) + b'{"a": 1}', "unreadable"),
        (header({"a": (0, 4), "b": (0, 4)}), "overlap"),
        (header({"a": (0, 4), "b": (5, 9)}), "gaps"),
        (header({"a": (4, 8)}), "gaps"),
        (header({"a": (0, 8)}, extra=4), "bytes where its header says"),
        (header({"a": (0, 8), "b": (8, 4)}), "overlap"),
    ],
)
def test_a_header_that_lies(folder, content, message):
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(UnsafeModel, match=message):
        check_weights(folder)


def test_truncated_anywhere(folder):
    path = weights(folder)
    whole = path.read_bytes()
    for cut in range(0, len(whole), 3):
        path.write_bytes(whole[:cut])
        with pytest.raises(UnsafeModel):
            check_weights(folder)


def test_a_flipped_bit_of_a_folder_that_bertshrink_wrote(tmp_path, folder):
    weights(folder)
    with new_folder(tmp_path / "sealed") as scratch:
        for path in folder.iterdir():
            (scratch / path.name).write_bytes(path.read_bytes())
    sealed = tmp_path / "sealed"
    assert check_weights(sealed)
    for name in ("model.safetensors", "config.json"):
        path = sealed / name
        whole = path.read_bytes()
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        with pytest.raises(UnsafeModel, match=f"`{name}` has changed since bertshrink wrote it"):
            check_weights(sealed)
        path.write_bytes(whole)
    (sealed / "config.json").unlink()
    with pytest.raises(UnsafeModel, match="missing, though the manifest lists it"):
        check_weights(sealed)
    for content in ("{", "[]", '{"files": 3}', '{"files": {"a": 3}}', '{"files": {"a": {"sha256": "x"}}}'):
        (sealed / "MANIFEST.json").write_text(content)
        with pytest.raises(UnsafeModel, match="manifest is unreadable"):
            check_weights(sealed)


# Labels


@pytest.mark.parametrize(
    ("values", "names", "expected"),
    [
        (["positive", "negative"], (), [1, 0]),
        (["Positive ", "NEGATIVE"], (), [1, 0]),
        ([1, 0], (), [1, 0]),
        (["1", "0"], (), [1, 0]),
        ([0, 1], ("positive", "negative"), [1, 0]),  # the data's own order of names
        ([0, 1], ("no", "yes"), [0, 1]),
        ([], (), []),
    ],
)
def test_labels_by_name_or_number(values, names, expected):
    assert map_labels(values, ("negative", "positive"), "data", names) == expected


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ([0, 2], ()),
        (["good", "bad"], ()),
        (["positive", 0.5], ()),
        ([None, "positive"], ()),
        ([-1, 1], ()),
        ([-1, 1], ("negative", "positive")),  # how a hub dataset says that a row has no label
    ],
)
def test_labels_that_the_teacher_does_not_have(values, names):
    with pytest.raises(UserError, match="do not match the teacher's") as caught:
        map_labels(values, ("negative", "positive"), "data", names)
    assert "`negative`, `positive` in the teacher" in caught.value.what


def test_the_classes_of_a_classifier():
    assert read_labels("classification", CLASSES, "c") == ("negative", "positive")
    assert read_labels("classification", {}, "c") == ("LABEL_0", "LABEL_1")
    assert read_labels("classification", {"id2label": {"1": "b", "0": "a"}}, "c") == ("a", "b")
