"""The names of a classifier's outputs, from every form in which a configuration says them."""

import json

import pytest

from bertshrink.errors import UserError
from bertshrink.model.checkpoint_info import read_facts
from bertshrink.model.checks.label_maps import label_names, num_outputs
from bertshrink.model.encoder import Encoder
from bertshrink.model.tasks import read_labels
from tests.support.model_folders import model_folder
from tests.support.tiny import tiny_encoder

AB = {"0": "a", "1": "b"}
MAPS = {
    "nothing": ({}, ("LABEL_0", "LABEL_1")),
    "nulls": ({"id2label": None, "label2id": None, "num_labels": None}, ("LABEL_0", "LABEL_1")),
    "a number alone": ({"num_labels": 3}, ("LABEL_0", "LABEL_1", "LABEL_2")),
    "texts as keys": ({"id2label": AB}, ("a", "b")),
    "numbers as keys": ({"id2label": {0: "a", 1: "b"}}, ("a", "b")),
    "out of order": ({"id2label": {"1": "b", "2": "c", "0": "a"}}, ("a", "b", "c")),
    "names that are numbers": ({"id2label": {"0": 3, "1": 7}, "label2id": {"3": 0, "7": 1}}, ("3", "7")),
    "both": ({"id2label": AB, "label2id": {"b": 1, "a": 0}, "num_labels": 2}, ("a", "b")),
    "numbers as texts": ({"id2label": AB, "label2id": {"a": "0", "b": "1"}}, ("a", "b")),
    "the reverse alone": ({"label2id": {"b": 1, "a": 0}}, ("a", "b")),
    "the reverse as transformers makes it up": ({"id2label": AB, "label2id": {"LABEL_0": 0, "LABEL_1": 1}}, ("a", "b")),
    "made up for two where there are more": (
        {"id2label": {"0": "LABEL_0", "1": "LABEL_1"}, "num_labels": 1},
        ("LABEL_0",),
    ),
}
REFUSED = {
    "disagree: `a` (1": {"id2label": AB, "label2id": {"a": 1, "b": 0}},
    "disagree: `x` (0": {"id2label": AB, "label2id": {"x": 0, "y": 1}},
    "disagree: `c` (2": {"id2label": AB, "label2id": {"a": 0, "b": 1, "c": 2}},
    "gives `a` to two outputs": {"id2label": {"0": "a", "1": "a"}},
    "`id2label` of the model's config.json does not number its labels from 0": {"id2label": {"1": "a", "2": "b"}},
    "does not number its labels from 0: `a`": {"id2label": {"a": 0}},
    "`label2id` of the model's config.json does not number": {"label2id": {"a": 1, "b": 2}},
    "does not number its labels from 0: `0.5`": {"id2label": AB, "label2id": {"a": 0.5, "b": 1}},
    "does not number its labels from 0: `False`": {"id2label": AB, "label2id": {"a": False, "b": True}},
    "`id2label` of the model's config.json is not a mapping": {"id2label": ["a", "b"]},
    "`label2id` of the model's config.json is not a mapping": {"label2id": ["a", "b"]},
    "names 2 labels, and by `num_labels` there are 3": {"id2label": AB, "num_labels": 3},
}


@pytest.mark.parametrize("form", MAPS)
def test_forms_that_say_one_thing(form):
    config, names = MAPS[form]
    assert label_names(config, "here") == names and num_outputs(config) == len(names)


@pytest.mark.parametrize("message", REFUSED)
def test_forms_that_say_two_things_or_nothing(message):
    with pytest.raises(UserError) as caught:
        label_names(REFUSED[message], "here")
    assert message in caught.value.what
    assert caught.value.where == "here" and caught.value.hint


@pytest.mark.parametrize(
    ("config", "task"),
    [
        ({"num_labels": 1}, "regression"),
        ({"id2label": {"0": "LABEL_0"}}, "regression"),
        ({"id2label": {"0": "LABEL_0"}, "problem_type": "regression"}, "regression"),
        ({"id2label": {"0": "toxic"}, "problem_type": "multi_label_classification"}, "multi-label"),
        ({"id2label": AB, "problem_type": "multi_label_classification"}, "multi-label"),
        ({"id2label": AB, "problem_type": "single_label_classification"}, "classification"),
        ({"id2label": AB, "finetuning_task": "sst-2", "_num_labels": 2}, "classification"),
    ],
)
def test_what_a_head_for_texts_is_for(config, task, tmp_path):
    facts = read_facts(model_folder(tmp_path / "m", **({"id2label": None} | config)))
    assert facts.task == task
    assert facts.labels == (() if task == "regression" else tuple(config["id2label"].values()))


@pytest.mark.parametrize(
    ("config", "message", "hint"),
    [
        (
            {"num_labels": 1, "problem_type": "single_label_classification"},
            "of one label",
            '"problem_type": "regression"',
        ),
        ({"id2label": AB, "problem_type": "regression"}, "the model gives 2 scores", "correct `problem_type`"),
        (
            {"id2label": AB, "problem_type": "ranking"},
            "`problem_type: ranking` of config.json is not known",
            "regression",
        ),
    ],
)
def test_problem_types_that_do_not_go_with_the_outputs(config, message, hint, tmp_path):
    with pytest.raises(UserError) as caught:
        read_facts(model_folder(tmp_path / "m", **({"id2label": None} | config)))
    assert message in caught.value.what and hint in caught.value.hint


def test_the_model_says_the_same_names_as_its_facts(tmp_path):
    tiny_encoder("bert", "classification").save(tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    del config["id2label"]
    path.write_text(json.dumps(config))
    encoder = Encoder.load(tmp_path)
    assert encoder.labels == read_labels("classification", config, "c") == ("negative", "positive")
    (tmp_path / "out").mkdir()
    encoder.save(tmp_path / "out")
    assert json.loads((tmp_path / "out" / "config.json").read_text())["id2label"] == {"0": "negative", "1": "positive"}
