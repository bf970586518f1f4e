"""The page of families says what the contract tests run, and what is refused is refused."""

import re
from pathlib import Path

import pytest

from bertshrink.errors import UserError
from bertshrink.model.checkpoint_info import read_facts
from bertshrink.model.families import FAMILIES
from bertshrink.model.sizes.parameter_count import facts_of
from bertshrink.model.tasks import TASKS
from bertshrink.techniques import TECHNIQUES
from tests.contract.test_techniques import FROM_A_MODEL, there_is
from tests.support.families import CONVERTED, NARROWED, THINNED, serves
from tests.support.tiny import tiny_encoder

PAGE = Path(__file__).parents[2] / "docs" / "families.md"


def cell(family, technique):
    """In which tasks a technique takes models of a family."""
    tasks = {task for task in TASKS if there_is(technique, family, task)}
    missing = [task for task in TASKS if task not in tasks]
    if not tasks:
        return "no"
    return f"all but {', '.join(missing)}" if missing else "all"


def table():
    rows = [("family", "`model_type`", "pretrain", "layers", "width", *(n for n in FROM_A_MODEL if n != "distill"))]
    for family, row in FAMILIES.items():
        pretrain = "yes" if row.pretraining is not None else "no"
        layers = cell(family, "distill")
        width = layers if family in THINNED else "no"
        others = [cell(family, name) for name in FROM_A_MODEL if name != "distill"]
        rows.append((row.title, f"`{family}`", pretrain, layers, width, *others))
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


def test_the_page_shows_the_cases_of_the_contract():
    text = PAGE.read_text(encoding="utf-8")
    shown = re.search(r"^\| family \|.*?(?=\n\n)", text, re.DOTALL | re.MULTILINE)[0]
    assert shown == table(), "put this into docs/families.md"


def test_the_page_tells_of_every_family_which_libraries_load_it():
    text = PAGE.read_text(encoding="utf-8")
    tables = re.findall(r"^\| `model_type` \| checkpoint.*?(?=\n\n)", text, re.DOTALL | re.MULTILINE)
    assert len(tables) == 2, "of sentence encoders and of classifiers"
    for shown in tables:
        families = re.findall(r"^\| `([^`]+)` \| (?:\d|no)", shown, re.MULTILINE)
        assert families == list(FAMILIES), "run `python benchmarks/family_loaders.py`"


@pytest.mark.parametrize(
    ("name", "family"),
    [
        (name, family)
        for name, there in (("factorize", NARROWED), ("share", CONVERTED))
        for family in FAMILIES
        if family not in there
    ],
)
def test_what_has_no_stock_class_is_refused_in_the_plan(name, family):
    settings = {"factorize": {"rank": 8}, "share": {}}[name]
    with pytest.raises(UserError, match="no stock class has"):
        TECHNIQUES[name](**settings).fit(facts_of(tiny_encoder(family, "mlm")))


@pytest.mark.parametrize("family", [name for name in FAMILIES if name not in THINNED])
def test_a_width_that_cannot_change_is_refused_in_the_plan(family):
    facts = facts_of(tiny_encoder(family, "mlm"))
    with pytest.raises(UserError, match="keep their width"):
        TECHNIQUES["distill"](layers=2, hidden_size=16).fit(facts)
    with pytest.raises(UserError, match="queries, keys and values"):
        TECHNIQUES["distill"](layers=2, relation_weight=1.0).fit(facts)


@pytest.mark.parametrize("family", [name for name in FAMILIES if not serves(name, "question-answering")])
def test_a_task_without_a_class_is_refused(family, tmp_path):
    encoder = tiny_encoder(family, "mlm")
    encoder.save(tmp_path)
    with pytest.raises(UserError, match=r"transformers has no class of .* for `question-answering`"):
        read_facts(tmp_path, "question-answering")


def test_only_the_first_layer_comes_first_where_it_has_no_norm():
    facts = facts_of(tiny_encoder("modernbert"))
    with pytest.raises(UserError, match="only it can be the first"):
        TECHNIQUES["distill"](layer_map=(2, 4)).fit(facts)
    assert TECHNIQUES["distill"](layers=2).chosen(4, keeps_first=True)[0] == 1
