"""The recipes that ship: inside the installed package, or beside it in a checkout."""

from __future__ import annotations

from pathlib import Path

from bertshrink.errors import UserError, did_you_mean
from bertshrink.files.hub import local_path


def recipe_folders() -> list[Path]:
    """Where shipped recipes are: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    checkout = package.parent
    beside = [checkout / "recipes"] if (checkout / "pyproject.toml").is_file() else []
    return [folder for folder in (package / "_recipes", *beside) if folder.is_dir()]


def shipped_recipes() -> dict[str, Path]:
    """Name -> file of every recipe that ships."""
    return {path.stem: path for folder in recipe_folders() for path in sorted(folder.glob("*.yaml"))}


def find_recipe(name: str) -> Path:
    """A recipe's file, by path or by the name of one that ships. Raises UserError: neither is there."""
    path = local_path(name)
    if path.is_file():
        return path
    shipped = shipped_recipes()
    if name in shipped:
        return shipped[name]
    if path.suffix or "/" in name:
        raise UserError(f"there is no recipe file `{name}`", hint="`bertshrink recipe list` shows the shipped ones")
    raise UserError(f"there is no recipe `{name}`", hint=did_you_mean(name, shipped))
