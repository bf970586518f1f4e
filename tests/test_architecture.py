"""Rules of the house, as tests: who imports whom, what the paper side may load, what must be described."""

import ast
import graphlib
import os
import re
import subprocess
import sys
from pathlib import Path

import grimp
import pytest

import bertshrink
from bertshrink.model.tasks import TASKS
from bertshrink.techniques import TECHNIQUES
from tests.support.model_folders import model_folder

PACKAGE = Path(bertshrink.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
HEAVY = ("torch", "transformers", "onnxruntime", "datasets", "accelerate", "safetensors", "tokenizers", "sklearn")
HEAVY += ("openvino", "executorch", "torchao")
PAPER = [
    "bertshrink",
    "bertshrink.cli",
    "bertshrink.cli.app",
    "bertshrink.cli.run",
    "bertshrink.engines",
    "bertshrink.meters",
    "bertshrink.recipe.from_command_line",
    "bertshrink.recipe.plan",
    "bertshrink.recipe.json_schema",
    "bertshrink.files.headers",
    "bertshrink.gates.paired_timing",
    "bertshrink.gates.update",
    "bertshrink.report.report",
    "bertshrink.techniques",
    *(f"bertshrink.techniques.{name}" for name in TECHNIQUES),
]


def names(path):
    return path.relative_to(PACKAGE).as_posix()


@pytest.mark.subprocess
def test_the_import_contracts_hold():
    done = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as f; f()", "--no-cache"],
        cwd=PACKAGE.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"Contracts: [1-9]\d* kept, 0 broken", done.stdout)


def imports():
    """Which module of the package imports which, imports for type checkers and within functions included."""
    graph = grimp.build_graph("bertshrink", cache_dir=None)
    return {name: graph.find_modules_directly_imported_by(name) for name in graph.modules}


def test_no_two_files_import_each_other_in_a_circle():
    try:
        order = list(graphlib.TopologicalSorter(imports()).static_order())
    except graphlib.CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))
    assert "bertshrink.cli.app" in order


def test_a_room_has_a_sentence_and_about_a_dozen_files_and_the_docs_name_it():
    told = (PACKAGE.parent / "docs" / "architecture.md").read_text(encoding="utf-8")
    for folder in sorted({path.parent for path in FILES} - {PACKAGE}):
        assert len(list(folder.glob("*.py"))) <= 14, folder
        opening = ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8")))
        assert opening, f"{folder}: a room has its sentence"
        room = folder.relative_to(PACKAGE).parts[0]
        assert f"`{room}/`" in told, room


def is_of(stem, room):
    """Whether the first words of a test file's name are a file or package of the room: `test_run_delivery` of `run`."""
    there = {path.stem for path in room.rglob("*")}
    words = stem.removeprefix("test_").split("_")
    return any("_".join(words[:end]) in there for end in range(1, len(words) + 1))


def test_a_test_file_lies_in_the_room_of_what_it_tests_and_is_named_after_it():
    files = [path for path in Path(__file__).parent.glob("*/test_*.py") if (PACKAGE / path.parent.name).is_dir()]
    names_room = [path for path in files if path.stem == f"test_{path.parent.name}"]  # its front door
    assert len(files) > 90
    assert [path for path in files if path not in names_room and not is_of(path.stem, PACKAGE / path.parent.name)] == []


def test_files_that_are_named_are_there():
    """What a map of a room or a page of the docs calls a file is one: maps outlive the files they show."""
    elsewhere = {"build.py", "make_data.py", "tests/ROOM/test_FILE.py"}  # ONNX Runtime's, the tutorial's, a pattern
    root = PACKAGE.parent
    there = {str(path.relative_to(root)) for path in root.glob("[!.]*/**/*.py") if "build" not in path.parts}
    pages = [*(root / "docs").rglob("*.md"), root / "README.md", root / "CONTRIBUTING.md"]
    texts = {path: path.read_text(encoding="utf-8") for path in pages}
    texts |= {path: ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "" for path in FILES}
    named = [
        (path, name) for path, text in texts.items() for name in re.findall(r"(?<![\w./<])((?:\w+/)*\w+\.py)\b", text)
    ]
    assert len(named) > 40
    lost = [f"{path.name}: {name}" for path, name in named if not any(f"/{one}".endswith(f"/{name}") for one in there)]
    assert sorted(set(lost)) == sorted(line for line in set(lost) if line.partition(": ")[2] in elsewhere)


def loaded_by(code, *argv, cwd=None):
    """Exit code and heavy modules of a fresh Python that runs `code`."""
    tail = f"\nprint('LOADED', sorted(m for m in {HEAVY!r} if m in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}{tail}", *argv],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(PACKAGE.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "LOADED" in done.stdout, done.stderr
    return done


@pytest.mark.subprocess
def test_the_paper_side_loads_no_engine():
    done = loaded_by("\n".join(f"import {name}" for name in PAPER))
    assert done.stdout.strip() == "LOADED []"


RUN = "from bertshrink.cli.app import run\nprint('CODE', run(sys.argv[1:]))"


@pytest.mark.subprocess
@pytest.mark.parametrize(
    ("argv", "code"),
    [
        (["--help"], 0),
        (["--version"], 0),
        (["distill", "--help"], 0),
        (["recipe", "schema"], 0),
        (["recipe", "list"], 0),
        (["nonsense"], 2),
        (["run", "r.yaml"], 2),
        (["run", "absent.yaml"], 2),
        (["distill", "./m", "--layers", "9", "--data", "d.tsv"], 2),
        (["distill", "./none", "--data", "d.tsv"], 2),
    ],
)
def test_help_and_a_rejected_request_load_no_engine(tmp_path, argv, code):
    model_folder(tmp_path / "m")
    (tmp_path / "d.tsv").write_text("sentence\tlabel\nx\t0\n")
    (tmp_path / "r.yaml").write_text("model: ./m\ndata: d.tsv\nstages: [{distill: {layers: 0}}, quantize]")
    done = loaded_by(RUN, *argv, cwd=tmp_path)
    assert done.stdout.splitlines()[-2:] == [f"CODE {code}", "LOADED []"]
    assert "this is a bug" not in done.stderr


@pytest.mark.parametrize(
    "argv", [["--help"], ["--version"], ["gate", "--help"], ["bench", "-h"], ["targets", "--help"]]
)
@pytest.mark.subprocess
def test_help_reads_the_table_alone(argv):
    code = f"{RUN}\nprint('READ', sorted({{'pydantic', 'rich', 'ruamel', 'numpy', 'onnx'}} & set(sys.modules)))"
    assert "CODE 0\nREAD []\n" in loaded_by(code, *argv).stdout


@pytest.mark.parametrize("technique", TECHNIQUES.values(), ids=lambda technique: technique.name)
def test_every_technique_says_where_it_comes_from_and_what_each_setting_means(technique):
    assert TECHNIQUES[technique.name] is technique
    assert re.match(r"arXiv:\d{4}\.\d{5}$|https://", technique.paper)
    assert technique.gives in ("encoder", "artifact")
    assert set(technique.takes) <= {"encoder", "artifact"}
    assert technique.takes or technique().makes().task in TASKS, "from nothing, with facts"
    assert technique.__doc__
    for name, field in technique.model_fields.items():
        assert field.description, name
    assert set(technique.other_names.values()) <= set(technique.model_fields), "hints name what exists"
    assert not set(technique.other_names) & set(technique.model_fields)
    made = technique()
    assert made.label()
    with pytest.raises(ValueError, match="frozen"):
        setattr(made, next(iter(technique.model_fields)), None)


def documented(tree, path, where=""):
    """Names of public definitions without a documentation string; what repeats a documented method needs none."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
            is_overload = any("overload" in ast.unparse(d) for d in node.decorator_list)
            if not ast.get_docstring(node) and not is_overload:
                yield f"{names(path)}: {where}{node.name}"
            if isinstance(node, ast.ClassDef):
                yield from documented(node, path, f"{node.name}.")


@pytest.mark.slow
@pytest.mark.parametrize("path", FILES, ids=names)
def test_each_file_is_documented_and_silent(path):
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    assert list(documented(tree, path)) == []
    if len(tree.body) > 3:
        assert ast.get_docstring(tree), "a file opens with its story"
    marks = re.findall(r"noqa: T20\d|(?<!\.)\bprint\(", text)
    assert not marks or names(path).startswith("cli/"), "only the command line prints"
    assert not re.search(r"\b(TODO|FIXME|XXX)\b", text)


@pytest.mark.slow
def test_every_relative_import_is_absolute():
    for path in FILES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert not [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level], names(path)
