"""What the project says of itself is true: README, docs, recipes, pins, the wheel."""

import importlib
import re
import shlex
import subprocess
import tomllib
import zipfile
from pathlib import Path

import pytest
import typer
from packaging.requirements import Requirement

from bertshrink.cli.app import app
from bertshrink.cli.help import HELP
from bertshrink.config.located_yaml import read_yaml
from bertshrink.data.settings import DataSettings
from bertshrink.engines import ENGINES
from bertshrink.errors import BertshrinkError, MissingDependency
from bertshrink.meters.latency.settings import LatencySettings
from bertshrink.model.families import FAMILIES
from bertshrink.model.tasks import TASKS
from bertshrink.recipe.plan import make_plan
from bertshrink.recipe.recipe import MeasureSettings, _Body, build, read_recipe
from bertshrink.recipe.shipped import shipped_recipes
from bertshrink.sources import resolve as sources
from bertshrink.techniques import TECHNIQUES
from bertshrink.training.settings import TrainingSettings

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")] + sorted(ROOT.glob("docs/**/*.md"))
RECIPES = sorted(ROOT.glob("recipes/*.yaml"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.M | re.S)


def shell_lines(text: str) -> list[str]:
    """What code blocks and code spans would have a shell do; spans with a placeholder in capitals are not commands."""
    lines = [line for block in blocks(text, "sh") for line in block.splitlines()]
    outside = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    spans = [span for span in re.findall(r"`([^`\n]+)`", outside) if not re.search(r"\b[A-Z]{4,}\b", span)]
    return [*lines, *spans]


def commands() -> list[str]:
    """Every `bertshrink ...` command line of the pages, without what a shell does around it."""
    lines = (line for page in PAGES for line in shell_lines(page.read_text(encoding="utf-8")))
    found = (re.split(r"\s(?:#|>|\|)\s", line)[0].strip() for line in lines if line.startswith("bertshrink "))
    return list(dict.fromkeys(found))


def parse(line: str) -> str:
    """Parse a command line as the program would, run nothing; returns the command's name."""
    command, words, name = typer.main.get_command(app), shlex.split(line)[1:], ""
    while hasattr(command, "commands"):
        if words[0] in HELP or any(words[0] in option.opts for option in command.params):
            return words[0]
        name = f"{name} {words[0]}".strip()
        command = command.commands[words.pop(0)]
    command.make_context(name, words)
    return name


def test_readme_opens_with_the_two_commands():
    assert blocks(read("README.md"), "sh")[0].split("\n") == ["make quickstart", "make test", ""]


@pytest.mark.slow
@pytest.mark.parametrize("line", commands())
def test_every_command_line_in_the_pages_parses(line):
    parse(line)


def test_a_wrong_command_line_does_not_parse():
    with pytest.raises(KeyError):
        parse("bertshrink shrink model")
    with pytest.raises(Exception, match="no-such-flag"):
        parse("bertshrink export model --no-such-flag")


def command_names() -> set[str]:
    group = typer.main.get_command(app)
    names = {n for n, c in group.commands.items() if not hasattr(c, "commands")}
    return names | {f"{app} {n}" for app in ("recipe", "targets") for n in group.commands[app].commands}


@pytest.mark.slow
def test_the_pages_have_an_example_of_every_command():
    assert command_names() <= {parse(line) for line in commands()}


def test_a_readers_first_page_is_short():
    assert len(read("README.md").encode()) <= 8_000


def test_every_make_target_in_the_pages_exists():
    targets = set(re.findall(r"^([a-z-]+):", read("Makefile"), re.M))
    lines = [line for page in PAGES for line in shell_lines(page.read_text(encoding="utf-8"))]
    asked = {shlex.split(line, comments=True)[1] for line in lines if line.startswith("make ")}
    assert {"quickstart", "test", "lint"} <= asked <= targets


def test_readme_names_all_families_tasks_and_techniques():
    text = read("README.md").casefold()
    assert [row.title for row in FAMILIES.values() if row.title.casefold() not in text] == []
    assert [name for name in (*TASKS, *TECHNIQUES) if name not in text] == []
    assert [name for name in ENGINES if name.casefold() not in text.replace(" ", "")] == []


def test_the_readmes_recipe_is_the_quickstart():
    text = blocks(read("README.md"), "yaml")[0]
    shown, shipped = build(read_yaml(text, "page"), text, "page"), read_recipe(ROOT / "recipes/quickstart.yaml")
    for part in ("model", "data"):
        assert getattr(shown, part) == getattr(shipped, part)
    assert [one.technique for one in shown.stages] == [one.technique for one in shipped.stages]
    assert shown.measure == shipped.measure


def shown_by_directives(kind: str) -> set[str]:
    """What the pages have the site's hook make a table of."""
    every = "\n".join(page.read_text(encoding="utf-8") for page in ROOT.glob("docs/**/*.md"))
    return set(re.findall(rf"^<!-- {kind}: (.+) -->$", every, re.M))


def test_every_setting_is_in_a_table_of_a_page():
    hook = importlib.import_module("docs.hooks")
    assert shown_by_directives("settings") == set(hook.SETTINGS)
    assert set(hook.SETTINGS.values()) == {
        *TECHNIQUES.values(),
        TrainingSettings,
        DataSettings,
        MeasureSettings,
        LatencySettings,
        _Body,
    }
    for_all_training = hook.settings_table("training")
    for name, model in hook.SETTINGS.items():
        table = hook.settings_table(name)
        for key, field in model.model_fields.items():
            shown = for_all_training if issubclass(model, TrainingSettings) and f"| `{key}` |" not in table else table
            assert f"| `{key}` | {field.description} |" in shown


def test_every_option_is_in_a_table_of_a_page():
    hook = importlib.import_module("docs.hooks")
    assert shown_by_directives("options") == command_names() - {"recipe list", "recipe schema"}
    assert "`--static-shape`" in hook.options_table("export")
    assert "| `RECIPE` |" in hook.options_table("run")


def test_a_table_says_what_a_setting_takes():
    hook = importlib.import_module("docs.hooks")
    fields = {**TECHNIQUES["distill"].model_fields, **LatencySettings.model_fields}
    assert hook.values_of(fields["hidden_loss"]) == "`cosine`, `mse`"
    assert hook.values_of(fields["layers"]) == "integer"
    assert hook.values_of(fields["mask_share"]) == "number, above 0, below 1"
    assert hook.values_of(fields["batch"]) == "list of integers"
    assert hook.default_of(fields["batch"]) == "`[1, 8]`"


def test_recipe_page_shows_a_recipe_that_reads():
    text = blocks(read("docs/recipes.md"), "yaml")[0]
    shown = [stage.technique.name for stage in build(read_yaml(text, "page"), text, "page").stages]
    assert shown == [name for name in TECHNIQUES if name != "pretrain"]  # which makes a model, and here one is given


def test_exit_codes_are_told():
    assert "\n<!-- exit codes -->\n" in read("docs/troubleshooting.md")
    table = importlib.import_module("docs.hooks").exit_codes("")
    for kind in BertshrinkError.__subclasses__():
        assert f"| {kind.exit_code} | `{kind.__name__}`" in read("docs/architecture.md")
        assert f"| {kind.exit_code} | `{kind.__name__}`" in table
    codes = re.findall(r"^\| (\d+) \|", table, re.M)
    assert codes == sorted(codes, key=int)
    assert {"0", "1", "2", "3", "5", "6", "7", "70"} <= set(codes)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page):
    links = re.findall(r"\[[^\]]*\]\((?!https?://)([^)#]+)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_changelog_has_a_place_for_what_is_new():
    assert "\n## [Unreleased]\n" in read("CHANGELOG.md")


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_plans(path, monkeypatch):
    recipe = read_recipe(path)
    if recipe.data is None:  # it is for texts of the user's own
        recipe = read_recipe(path, {"data": "builtin:pydoc"})
    assert path.read_text(encoding="utf-8").startswith("# "), "`recipe list` shows the first line"
    assert shipped_recipes()[path.stem].read_bytes() == path.read_bytes()
    monkeypatch.setattr(sources, "hub_is_reachable", lambda: False)
    try:
        plan = make_plan(recipe)
    except MissingDependency as error:
        pytest.skip(f"the recipe reads; its model is not on this machine: {error.what}")
    assert len(plan.stages) == len(recipe.stages)


def test_pins_cover_and_satisfy_what_is_asked_for():
    pins = dict(line.lower().split("==") for line in read("constraints.txt").splitlines() if "==" in line)
    extras = PROJECT["optional-dependencies"]
    brought = ("ml", "demo", "openvino", "docs", "dev")
    asked = [Requirement(line) for line in (*PROJECT["dependencies"], *(line for e in brought for line in extras[e]))]
    for requirement in asked:
        if requirement.name != PROJECT["name"]:
            version = pins.get(requirement.name) or pins[requirement.name.replace("-", "_")]
            assert requirement.specifier.contains(version), requirement
    assert pins["torch"] == "2.13.0"
    assert not any("+" in version or name.startswith(("nvidia", "bertshrink")) for name, version in pins.items())


def test_wheel_brings_recipes_template_and_licence(tmp_path):
    wheel = pytest.importorskip("hatchling.builders.wheel")
    (path,) = wheel.WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    with zipfile.ZipFile(path) as file:
        names = set(file.namelist())
    assert {f"bertshrink/_recipes/{recipe.name}" for recipe in RECIPES} <= names
    assert "bertshrink/meters/targets/arm64/plugin.c" in names
    page = {f"bertshrink/report/render/{name}" for name in ("template.html.j2", "style.css.j2")}
    assert {"bertshrink/py.typed", *page} <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not any(name.startswith(("tests/", "benchmarks/")) for name in names)


@pytest.mark.subprocess
def test_no_tracked_file_names_the_machine_it_was_written_on():
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    paths = [ROOT / name for name in listed.decode().split("\0") if name]
    private = re.compile(rb"(?<![\w./-])/(?:work|root)/|/tmp/dev\b|/home/(?!runner)\w+/|/Users/\w+/")
    own = Path(__file__)
    found = [str(p) for p in paths if p.is_file() and p != own and private.search(p.read_bytes())]
    assert found == []
