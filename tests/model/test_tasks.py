"""The table of tasks: each room has an entry for every one, and decides by what a row says, not by its name."""

import ast
from pathlib import Path

import pytest

import bertshrink
from bertshrink.data.encoding import ENCODERS
from bertshrink.data.labels.labels import LABEL_RULES
from bertshrink.meters.quality.evaluators import EXAMS
from bertshrink.model.tasks import TASKS
from bertshrink.techniques.distill.defaults import DEFAULTS
from bertshrink.techniques.distill.losses import SOFT_LOSSES
from bertshrink.techniques.finetune.settings import RATES
from bertshrink.training.losses import LOSSES
from bertshrink.training.rows.batching import LABEL_TENSORS

PACKAGE = Path(bertshrink.__file__).parent
TABLES = {
    "LABEL_RULES": LABEL_RULES,
    "ENCODERS": ENCODERS,
    "LABEL_TENSORS": LABEL_TENSORS,
    "LOSSES": LOSSES,
    "SOFT_LOSSES": SOFT_LOSSES,
    "DEFAULTS": DEFAULTS,
    "RATES": RATES,
    "EXAMS": EXAMS,
}


@pytest.mark.parametrize("name", TABLES)
def test_every_table_of_a_room_has_an_entry_for_every_task(name):
    assert list(TABLES[name]) == list(TASKS)


def test_the_table_of_tasks_tells_where_the_others_stand():
    text = ast.get_docstring(ast.parse((PACKAGE / "model" / "tasks.py").read_text(encoding="utf-8")))
    told = {line.split()[0]: line.split()[1] for line in text.splitlines() if line.strip().split(" ")[0] in TABLES}
    assert set(told) == set(TABLES)
    for name, module in told.items():
        assert f"\n{name}: dict[str, " in (PACKAGE / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8")


def compared(tree):
    """Every string that something is compared with: by `==`, `in`, or as a `case`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            yield from (leaf.value for leaf in ast.walk(node) if isinstance(leaf, ast.Constant))
        elif isinstance(node, ast.MatchValue) and isinstance(node.value, ast.Constant):
            yield node.value.value


def test_nothing_in_the_package_is_decided_by_the_name_of_a_task():
    assert list(compared(ast.parse('x in ("mlm", "a")\nmatch y:\n    case "b":\n        pass'))) == ["mlm", "a", "b"]
    for path in sorted(PACKAGE.rglob("*.py")):
        assert not set(TASKS) & set(compared(ast.parse(path.read_text(encoding="utf-8")))), path
