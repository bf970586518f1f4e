"""What the site makes while it is built, so that nothing is in two places.

Directives in a page, each on a line of its own, become tables made from the code:

    <!-- settings: distill -->      the settings of a technique; also `training`, `data`, `measure`, `latency`, `recipe`
    <!-- options: targets list -->  the flags and arguments of a command
    <!-- exit codes -->             every kind of error with its exit code
    <!-- recipes -->                the recipes that ship
    <!-- tasks -->                  the tasks with their metric and outputs
    <!-- functions -->              the functions of the Python API that make a model

README.md, CHANGELOG.md, CONTRIBUTING.md and the notebooks become pages. Links to files of the checkout that are not
pages lead to the repository.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin

import nbformat
import typer
from mkdocs.structure.files import File
from pydantic import BaseModel

from bertshrink.cli.app import app
from bertshrink.data.settings import DataSettings
from bertshrink.errors import BertshrinkError
from bertshrink.meters.latency.settings import LatencySettings
from bertshrink.model.tasks import TASKS
from bertshrink.recipe.command_table import COMMANDS
from bertshrink.recipe.recipe import MeasureSettings, _Body
from bertshrink.recipe.shipped import shipped_recipes
from bertshrink.techniques import TECHNIQUES
from bertshrink.training.settings import TrainingSettings

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page
    from pydantic.fields import FieldInfo

ROOT = Path(__file__).parent.parent
FROM_ROOT = {"index.md": "README.md", "changelog.md": "CHANGELOG.md", "contributing.md": "CONTRIBUTING.md"}
"""Page -> the file at the top of the checkout that it shows."""
SETTINGS: dict[str, type[BaseModel]] = {
    **TECHNIQUES,
    "training": TrainingSettings,
    "data": DataSettings,
    "measure": MeasureSettings,
    "latency": LatencySettings,
    "recipe": _Body,
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made from files elsewhere."""
    for page, name in FROM_ROOT.items():
        text = (ROOT / name).read_text(encoding="utf-8").replace("](docs/", "](")
        files.append(File.generated(config, page, content=_linked(text, config, "")))
    for path in sorted((ROOT / "docs").glob("notebooks/*.ipynb")):
        files.append(File.generated(config, f"notebooks/{path.stem}.md", content=notebook_page(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Carry out the directives of a page."""
    if page.is_homepage:
        page.meta["hide"] = ["navigation"]
    text = re.sub(r"^<!-- ([a-z ]+?)(?:: (.+?))? -->$", _directive, markdown, flags=re.M)
    return _linked(text, config, "../")


def _linked(text: str, config: MkDocsConfig, up: str) -> str:
    """Links to what is not a page lead to the repository: `../benchmarks/LOG.md`."""
    names = "|".join(sorted(re.escape(path.name) for path in ROOT.iterdir()))
    target = rf"\]\((?:\.\./)*{re.escape(up)}((?:{names})(?:/[^)#]*)?)(#[^)]*)?\)"
    return re.sub(target, lambda link: f"]({config.repo_url}/blob/main/{link[1]}{link[2] or ''})", text)


def _directive(found: re.Match[str]) -> str:
    return _DIRECTIVES[found[1]](found[2] or "")


def settings_table(name: str) -> str:
    """The settings of a technique (without those that all training has) or of a part of a recipe."""
    fields = SETTINGS[name].model_fields
    if name in TECHNIQUES and issubclass(TECHNIQUES[name], TrainingSettings):
        fields = {key: field for key, field in fields.items() if key not in TrainingSettings.model_fields}
    rows = [(f"`{key}`", field.description or "", values_of(field), default_of(field)) for key, field in fields.items()]
    shown = table(("Setting", "Meaning", "Values", "Default"), rows)
    is_open = not all(default for *_, default in rows)
    return shown + ("\n\nWhere no default is given, there is none, or model, task and data decide." if is_open else "")


def values_of(field: FieldInfo) -> str:
    """What a setting takes, in words: `a`, `b`; number, at least 1."""
    kinds = list(dict.fromkeys(word for kind in _members(field.annotation) for word in _words(kind)))
    bounds = [
        text.format(getattr(rule, name))
        for rule in field.metadata
        for name, text in (("ge", "at least {}"), ("gt", "above {}"), ("le", "at most {}"), ("lt", "below {}"))
        if getattr(rule, name, None) is not None
    ]
    return ", ".join([*kinds, *bounds])


def _members(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)


def _words(kind: Any) -> Iterable[str]:
    if get_origin(kind) is Literal:
        return [f"`{str(word).lower() if isinstance(word, bool) else word}`" for word in get_args(kind)]
    if get_origin(kind) in (tuple, list):
        inner = [word for part in get_args(kind)[:1] for member in _members(part) for word in _words(member)]
        return [f"list of {' or '.join({'integer': 'integers', 'text': 'texts'}.get(word, word) for word in inner)}"]
    if hasattr(kind, "__metadata__"):
        return _words(get_args(kind)[0])
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return ["settings"]
    names = {bool: "`true`, `false`", int: "integer", float: "number", str: "text", type(None): ""}
    return [word] if (word := names.get(kind, "see the text")) else []


def default_of(field: FieldInfo) -> str:
    """A setting's default; empty where it is decided by the model, the task or the data."""
    default = field.get_default(call_default_factory=True)
    if default is None or default in ((), [], {}):
        return ""
    if isinstance(default, BaseModel):
        return "on"
    if isinstance(default, tuple | list):
        return f"`[{', '.join(map(str, default))}]`"
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


def options_table(line: str) -> str:
    """What a command takes, by the panels of its help."""
    command: Any = typer.main.get_command(app)
    for word in line.split():
        command = command.commands[word]
    panels: dict[str, list[tuple[str, str]]] = {}
    for option in command.params:
        if option.name == "help":
            continue
        is_argument = option.param_type_name == "argument"
        names = [*sorted(option.opts, key=len, reverse=True), *option.secondary_opts]
        if is_argument:
            names = [option.metavar or option.name.upper()]
        shown = ", ".join(f"`{name}`" for name in names)
        title = getattr(option, "rich_help_panel", None) or ("Arguments" if is_argument else "Options")
        panels.setdefault(title, []).append((shown, option.help or ""))
    parts = []
    for title, rows in panels.items():
        parts += [f"**{title}**", table(("Option" if title != "Arguments" else "Argument", "Meaning"), rows)]
    return "\n\n".join(parts)


def exit_codes(_: str) -> str:
    """Every kind of error with its exit code."""
    kinds = sorted(BertshrinkError.__subclasses__(), key=lambda kind: kind.exit_code)
    rows = [(str(kind.exit_code), f"`{kind.__name__}`", (kind.__doc__ or "").splitlines()[0]) for kind in kinds]
    rows = [("0", "", "Done."), *rows, ("70", "", "A bug in bertshrink; the path of its log is printed.")]
    return table(("Code", "Exception", "Meaning"), sorted(rows, key=lambda row: int(row[0])))


def recipes_table(_: str) -> str:
    """The recipes that ship, with their first line."""
    rows = []
    for name, path in sorted(shipped_recipes().items()):
        first = path.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")
        rows.append((f"[`{name}`](../recipes/{name}.yaml)", first))
    return table(("Recipe", "What it does"), rows)


def tasks_table(_: str) -> str:
    """The tasks with their metric and outputs."""
    rows = [
        (f"`{task.name}`", f"`{task.auto_class}`", task.headline, ", ".join(f"`{o}`" for o in task.outputs))
        for task in TASKS.values()
    ]
    return table(("Task", "Class that loads it", "Metric", "Outputs"), rows)


def functions(_: str) -> str:
    """The functions that make a model: signature, first sentence, and where their settings are."""
    parts = []
    for command in COMMANDS.values():
        trains = any(issubclass(technique, TrainingSettings) for technique in command.techniques)
        pages = [f"[{technique.name}](techniques/{technique.name}.md#settings)" for technique in command.techniques]
        pages += ["[training](techniques/training.md)"] if trains else []
        model = "model, *, " if command.techniques[0].takes else ""
        parts += [
            f"### {command.name}",
            f"```python\nbertshrink.{command.name}({model}data=None, output=None, **settings) -> Result\n```",
            f"{command.help} `settings` are those of {', '.join(pages)}.",
        ]
    return "\n\n".join(parts)


_DIRECTIVES: dict[str, Callable[[str], str]] = {
    "settings": settings_table,
    "options": options_table,
    "exit codes": exit_codes,
    "recipes": recipes_table,
    "tasks": tasks_table,
    "functions": functions,
}


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """A Markdown table; empty columns are left out."""
    every = [head, *(tuple(cell.replace("|", "\\|").replace("\n", " ") for cell in row) for row in rows)]
    kept = [i for i in range(len(head)) if any(row[i] for row in every[1:])]
    lines = ["| " + " | ".join(row[i] for i in kept) + " |" for row in every]
    return "\n".join([lines[0], "|" + " --- |" * len(kept), *lines[1:]])


def notebook_page(path: Path) -> str:
    """A notebook as Markdown: its text, its code, and what the code gave."""
    cells = nbformat.read(path, as_version=4).cells
    return "\n\n".join(part for cell in cells for part in _cell(cell)) + f"\n\n[Download this notebook]({path.name})\n"


def _cell(cell: Any) -> Iterable[str]:
    if cell.cell_type == "markdown":
        yield cell.source
        return
    yield f"```python\n{cell.source}\n```"
    shown = [text for output in cell.get("outputs", []) if (text := _shown(output))]
    if shown:
        yield "\n".join(['<div class="notebook-output">', *shown, "</div>"])


def _shown(output: Any) -> str:
    """An output as HTML: a blank line would end it for Markdown."""
    from html import escape

    data = output.get("data", {"text/plain": output.get("text", "")})
    if "image/png" in data:
        return f'<img alt="" src="data:image/png;base64,{data["image/png"].strip()}">'
    text = data.get("text/plain", "").strip("\n")
    html = data.get("text/html", f"<pre>{escape(text)}</pre>" if text else "")
    return re.sub(r"\n[ \t]*(?=\n)", "\n&#8203;", str(html).strip())
