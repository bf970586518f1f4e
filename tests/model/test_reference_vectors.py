"""Vectors that a model gives elsewhere: read within bounds, and compared one by one."""

import json

import pytest

from bertshrink.errors import CheckFailed, UserError
from bertshrink.model.checks.reference_vectors import REFERENCE_VECTORS, ReferenceVectors, reference_of
from tests.support.remote_repositories import write_vectors
from tests.support.tiny import tiny_encoder

TEXTS = ["the movie was wonderful", "data is code"]


@pytest.fixture(scope="module")
def encoder():
    return tiny_encoder("bert", "embedding", num_hidden_layers=1)


def test_a_model_agrees_with_its_own_vectors_of_any_length(encoder, tmp_path):
    vectors = ReferenceVectors.read(write_vectors(tmp_path / "v.json", encoder, TEXTS, scale=7.0))
    assert vectors.compare(encoder) == (
        "compared with 2 reference vectors of v.json: the least cosine is 1.000000 (at least 0.999 is asked for)"
    )


def test_one_text_whose_vector_is_another_is_enough(encoder, tmp_path):
    path = write_vectors(tmp_path / "v.json", encoder, TEXTS)
    about = json.loads(path.read_text())
    about["vectors"][1][0] += 3.0
    path.write_text(json.dumps(about))
    with pytest.raises(CheckFailed, match=r"the cosine of `data is code` is 0\.\d+, and at least 0.999") as caught:
        ReferenceVectors.read(path).compare(encoder)
    assert caught.value.where == str(path)
    with pytest.raises(CheckFailed):
        ReferenceVectors.read(write_vectors(path, tiny_encoder("bert", "embedding", seed=1), TEXTS)).compare(encoder)


def test_vectors_of_another_width_are_refused(encoder, tmp_path):
    (tmp_path / "v.json").write_text('{"texts": ["a"], "vectors": [[1.0, 2.0]]}')
    with pytest.raises(UserError, match="2 numbers each, and the model's vectors 32"):
        ReferenceVectors.read(tmp_path / "v.json").compare(encoder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "not an object of `texts` and `vectors` alone"),
        ('{"texts": ["a"]}', "not an object"),
        ('{"texts": ["a"], "vectors": [[1]], "model": "m"}', "alone"),
        ('{"texts": [], "vectors": []}', "not a list of texts"),
        ('{"texts": [1], "vectors": [[1]]}', "not a list of texts"),
        ('{"texts": ["a", "b"], "vectors": [[1]]}', "as many lists of numbers"),
        ('{"texts": ["a"], "vectors": [["1"]]}', "as many lists of numbers"),
        ('{"texts": ["a"], "vectors": [[true]]}', "as many lists of numbers"),
        ('{"texts": ["a"], "vectors": [[0, 0]]}', "with one that is not 0"),
        ('{"texts": ["a"], "vectors": [[]]}', "with one that is not 0"),
        ('{"texts": ["a", "b"], "vectors": [[1], [1, 2]]}', "not of one length"),
        ('{"texts": ["a"], "vectors": [[1e400]]}', "cannot be read"),
        ("{", "cannot be read"),
        (None, "cannot be read"),
    ],
)
def test_files_that_are_refused(content, message, tmp_path):
    path = tmp_path / "v.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=message) as caught:
        ReferenceVectors.read(path)
    assert caught.value.where.startswith(str(path))
    assert "texts" in caught.value.hint


def test_too_many_texts_are_refused(tmp_path):
    (tmp_path / "v.json").write_text(json.dumps({"texts": ["a"] * 1001, "vectors": [[1]] * 1001}))
    with pytest.raises(UserError, match="1001 texts"):
        ReferenceVectors.read(tmp_path / "v.json")


def test_those_that_are_named_stand_before_the_folders_own(encoder, tmp_path):
    assert reference_of(tmp_path, "embedding", None) is None
    own = write_vectors(tmp_path / REFERENCE_VECTORS, encoder, TEXTS[:1])
    named = write_vectors(tmp_path / "v.json", encoder, TEXTS)
    assert reference_of(tmp_path, "embedding", None).path == own
    found = reference_of(tmp_path, "embedding", named)
    assert (found.path, found.is_named) == (named, True)


def test_a_task_without_vectors_has_nothing_to_compare(encoder, tmp_path):
    path = write_vectors(tmp_path / REFERENCE_VECTORS, encoder, TEXTS)
    assert reference_of(tmp_path, "classification", None) is None
    with pytest.raises(UserError, match="its task is `classification`"):
        reference_of(tmp_path, "classification", path)
