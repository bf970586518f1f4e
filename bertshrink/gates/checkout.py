"""The artifacts of a checkout, judged: its limits, its files, and the baseline that git has."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from bertshrink.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from bertshrink.gates.limits.config import Config, Gated
    from bertshrink.gates.verdict import Examined, Judgement
    from bertshrink.progress import Progress


def judge_checkout(
    progress: Progress,
    *,
    artifact: Path | None = None,
    report: Path | None = None,
    base_artifact: Path | None = None,
    base: str | None = None,
    config: Path | None = None,
    files_only: bool = False,
    strict: bool = False,
    name: str | None = None,
) -> tuple[Judgement, list[Examined]]:
    """Judge artifacts by committed limits and a committed baseline.

    Args:
        name: what tells this judgement from others of a pull request; None: its limits and artifact.

    Raises:
        BertshrinkError: it cannot be judged.
    """
    limits, chosen = config_and_artifacts(config, artifact)
    examined = [look_at(one, limits.folder, report, files_only) for one in chosen]
    examined = raced(examined, limits, base_artifact, progress)
    judgement = judge_examined(limits, examined, base, files_only=files_only, strict=strict)
    return replace(judgement, id=name if name is not None else identifier(limits, chosen)), examined


def config_and_artifacts(path: Path | None, artifact: Path | None) -> tuple[Config, tuple[Gated, ...]]:
    """The limits, and the artifacts that are meant."""
    from bertshrink.gates.limits.config import find_config, read_config

    if path is None:
        nearest = find_config(Path.cwd())
        if nearest is None:
            raise UserError(
                "there are no limits: no [gate] in `bertshrink.toml`, no [tool.bertshrink.gate] in `pyproject.toml`",
                where=str(Path.cwd()),
                hint="write first ones from today's figures: `bertshrink gate --init ARTIFACT`",
            )
        path = nearest[0]
    if artifact is None:
        config = read_config(short(path))
        return config, config.gated
    config = read_config(short(path), artifact.resolve())
    named = tuple(one for one in config.gated if one.name == artifact.as_posix())
    chosen = named or tuple(one for one in config.gated if is_at(one, artifact, config.folder))
    if len(config.gated) == 1:
        by_name = bool(chosen) and not artifact.exists()  # seen from another folder
        config = read_config(short(path)) if by_name else config
        return config, config.gated
    if not chosen:
        hint = did_you_mean(artifact.as_posix(), [one.name for one in config.gated])
        raise UserError(f"the limits name no artifact `{artifact.as_posix()}`", where=config.origin, hint=hint)
    return config, chosen


def is_at(one: Gated, artifact: Path, folder: Path) -> bool:
    """Whether an artifact is the one that is at a path."""
    return artifact.resolve() == (folder / one.path).resolve()


def identifier(config: Config, chosen: tuple[Gated, ...]) -> str:
    """Which limits, as seen from the root of the repository, and which of several artifacts."""
    root = next((one for one in (config.folder, *config.folder.parents) if (one / ".git").exists()), config.folder)
    file = Path(config.origin).resolve()
    shown = file.relative_to(root.resolve()) if file.is_relative_to(root.resolve()) else file
    names = [one.name for one in chosen] if len(chosen) < len(config.gated) else []
    return " ".join([shown.as_posix(), *names])


def short(path: Path) -> Path:
    """A path as seen from here, where it is below."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_absolute() and path.is_relative_to(here) else path


def look_at(gated: Gated, folder: Path, report: Path | None, files_only: bool) -> Examined:
    """One artifact's figures: its file's, and its report's where there is one."""
    from bertshrink.gates.verdict import examine

    if files_only:
        return examine(gated, folder, None)
    own = folder / gated.report if gated.report is not None else None
    return examine(gated, folder, report or (short(own) if own is not None else None))


def raced(examined: list[Examined], config: Config, base_artifact: Path | None, progress: Progress) -> list[Examined]:
    """The artifacts with their times against the base artifact, where one is given."""
    if base_artifact is None:
        return examined
    if len(examined) > 1:
        raise UserError(
            "there is one base artifact; several artifacts could be timed against it",
            where="--base-artifact",
            hint="keep each artifact's limits in a file of its own, and name it with `--config`",
        )
    if not any(rule.key.gauge.source == "time" for rule in examined[0].gated.rules):
        raise UserError(
            "no rule is about time, so there is nothing to time",
            where="--base-artifact",
            hint='write one: "cpu p50 ratio" = "<= 1.10"',
        )
    from bertshrink.gates.paired_timing import race

    own = config.folder / examined[0].gated.path
    return [replace(examined[0], ratios=race(base_artifact, own, config.latency, progress))]


def judge_examined(
    config: Config, examined: list[Examined], base: str | None, *, files_only: bool = False, strict: bool = False
) -> Judgement:
    """The judgement on what was looked at, by the baseline that git has."""
    from bertshrink.gates.baseline.merge_base import read_baseline
    from bertshrink.gates.verdict import judge_all

    return judge_all(examined, read_baseline(config, base), config, files_only=files_only, strict=strict)
