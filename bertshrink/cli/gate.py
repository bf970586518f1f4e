"""`bertshrink gate`: the artifacts of a checkout against the limits that its team has committed.

Judges, writes what CI wants to read, and ends with the verdict's exit code. With `--update` it writes the next baseline
instead, with `--init` a first configuration.
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bertshrink.cli.options import INPUT, MEASURING, OUTPUT, expanded, option
from bertshrink.cli.streams import result_stands
from bertshrink.errors import BaselineError, BertshrinkError, UserError, UserErrors

if TYPE_CHECKING:
    from bertshrink.gates.baseline.lock import Lock
    from bertshrink.gates.limits.config import Config
    from bertshrink.gates.verdict import Examined, Judgement

Place = Path | None
LIMITS = "Limits and baseline"


def gate(
    artifact: Annotated[
        Place,
        typer.Argument(
            help="artifact to judge: its name in the configuration, or a file or folder in place of the only one",
            metavar="[ARTIFACT]",
        ),
    ] = None,
    report: Annotated[
        Place,
        option(INPUT, "--report", metavar="FILE", help="a run's report.json: quality, memory, instructions"),
    ] = None,
    base_artifact: Annotated[
        Place,
        option(
            MEASURING,
            "--base-artifact",
            metavar="PATH",
            help="artifact to time against, in alternation, on this machine",
        ),
    ] = None,
    config: Annotated[
        Place,
        option(
            LIMITS,
            "--config",
            metavar="FILE",
            help="configuration file with the limits [default: bertshrink.toml, pyproject.toml]",
        ),
    ] = None,
    base: Annotated[
        str | None,
        option(
            LIMITS,
            "--base",
            metavar="COMMIT",
            help="base branch or commit of this change [default: from CI or git]",
        ),
    ] = None,
    init: Annotated[
        bool, option(LIMITS, "--init", help="write initial limits from the current figures, or add an artifact")
    ] = False,
    update: Annotated[bool, option(LIMITS, "--update", help="write a new baseline instead of judging")] = False,
    accept: Annotated[
        str | None,
        option(
            LIMITS,
            "--accept",
            metavar="WHY",
            help="with --update: accept regressions beyond their limit; WHY is recorded",
        ),
    ] = None,
    strict: Annotated[bool, option(LIMITS, "--strict", help="treat inconclusive results as failures")] = False,
    files_only: Annotated[bool, option(LIMITS, "--files-only", help="check only rules that need no report")] = False,
    as_json: Annotated[bool, option(OUTPUT, "--json", help="print the results as JSON")] = False,
    markdown: Annotated[bool, option(OUTPUT, "--markdown", help="print the results as Markdown")] = False,
    junit: Annotated[Place, option(OUTPUT, "--junit", metavar="FILE", help="write the results as JUnit XML")] = None,
    comment_file: Annotated[
        Place, option(OUTPUT, "--comment-file", metavar="FILE", help="write a pull request comment")
    ] = None,
    id_: Annotated[
        str | None,
        option(
            OUTPUT,
            "--id",
            metavar="NAME",
            help="identifier of the comment, for jobs that differ in more than limits and artifact",
        ),
    ] = None,
    openmetrics: Annotated[
        Place, option(OUTPUT, "--openmetrics", metavar="FILE", help="write every figure as OpenMetrics text")
    ] = None,
    quiet: Annotated[bool, option(OUTPUT, "-q", "--quiet", help="no progress")] = False,
) -> int:
    """Judge artifacts by committed limits and a committed baseline: size, operators, quality, memory, time."""
    from bertshrink.gates.checkout import config_and_artifacts, judge_checkout, look_at

    result_stands()
    artifact, report, base_artifact, config = map(_expanded, (artifact, report, base_artifact, config))
    junit, comment_file, openmetrics = map(_expanded, (junit, comment_file, openmetrics))
    try:
        if init:
            return _init(artifact, report, config)
        if accept is not None and not update:
            raise UserError("`--accept` needs `--update`", where="--accept", hint="give `--update` too")
        if update:
            limits, chosen = config_and_artifacts(config, artifact)
            return _update(limits, [look_at(one, limits.folder, report, False) for one in chosen], base, accept)
        if base_artifact is not None:
            from bertshrink.pipeline.requirements import require_ml

            require_ml()
        from bertshrink.cli.progress import make_progress

        judgement, examined = judge_checkout(
            make_progress(quiet),
            artifact=artifact,
            report=report,
            base_artifact=base_artifact,
            base=base,
            config=config,
            files_only=files_only,
            strict=strict,
            name=id_,
        )
    except BertshrinkError as error:
        _annotate_error(error)
        raise
    _write(judgement, examined, junit, comment_file, openmetrics)
    _tell_github(judgement)
    _print(judgement, as_json, markdown)
    return judgement.exit_code


def _expanded(path: Place) -> Place:
    return expanded(path) if path is not None else None


def _update(config: Config, examined: list[Examined], base: str | None, accept: str | None) -> int:
    """Write the lock and print what it changes; entries of other artifacts than these stay as they are."""
    from bertshrink.files.atomic import write_text
    from bertshrink.gates.baseline.merge_base import Baseline, read_baseline
    from bertshrink.gates.checkout import short
    from bertshrink.gates.limits.config import others_in_lock
    from bertshrink.gates.update import difference, next_lock
    from bertshrink.gates.verdict import judge_all

    try:
        baseline = read_baseline(config, base)
    except BaselineError as error:
        if accept is not None:
            raise
        typer.echo(f"the old baseline is ignored: {error.what}", err=True)
        baseline = Baseline(None, str(config.lock), _lock_now(config))
    own = {one.gated.name for one in examined}
    known = baseline.now.artifacts if baseline.now is not None else {}
    kept = set(known) & (others_in_lock(config) - {one.name for one in config.gated})
    if len(examined) < len(config.gated):
        kept = set(known) - {one.gated.renamed_from for one in examined}
    as_it_is = replace(baseline, now=None, is_base=False, gone=())  # what the lock says now is not what is judged
    judgement = judge_all([_unanchored(one) for one in examined], as_it_is, config)
    new = next_lock(examined, baseline, judgement, accept, kept - own)
    path = config.folder / config.lock
    if new == baseline.now and path.is_file():
        typer.echo(f"{config.lock}: nothing changes")
        return 0
    write_text(path, new.to_json())
    for step in difference(baseline.now, new):
        typer.echo(str(step))
    typer.echo(f"wrote {short(path)}: commit it, and let the difference be reviewed")
    for one in baseline.gone:
        hint = f'`removed = ["{one.name}"]`, or `renamed_from = "{one.name}"` where it has another name now'
        typer.echo(f"`{one.name}` is gone: declare it in {config.origin}: {hint}")
    return 0


def _lock_now(config: Config) -> Lock | None:
    """The lock of the working tree; None where there is none that can be read."""
    from bertshrink.gates.baseline.lock import read_lock

    try:
        return read_lock(config.folder / config.lock)
    except BaselineError:
        return None


def _unanchored(one: Examined) -> Examined:
    """Without the rules that no baseline of this lock decides."""
    return replace(one, gated=replace(one.gated, rules=tuple(rule for rule in one.gated.rules if rule.since is None)))


def _init(artifact: Place, report: Place, config: Place) -> int:
    """Write `bertshrink.toml`, or add to the limits that are there, and write the lock, from what is there today."""
    from bertshrink.files.atomic import write_text
    from bertshrink.gates.checkout import is_at, look_at, short
    from bertshrink.gates.limits.config import Gated, find_config, read_config
    from bertshrink.gates.limits.first_limits import first_config, with_artifact
    from bertshrink.gates.verdict import examine

    if artifact is None:
        raise UserError("no artifact is named", where="--init", hint="name it: `bertshrink gate --init ARTIFACT`")
    known = config if config is not None and config.is_file() else None
    if config is None and (location := find_config(Path.cwd())) is not None:
        known = location[0]
    target = (known or config or Path.cwd() / "bertshrink.toml").resolve()
    if known is None and target.exists():
        hint = "add `[gate]` there, or name another file with `--config`"
        raise UserError(f"`{target.name}` already exists, without limits", where=str(short(target)), hint=hint)
    own, its_report = _seen_from(artifact, target.parent), report and _seen_from(report, target.parent)
    if known is not None and any(is_at(one, artifact, target.parent) for one in read_config(short(target)).gated):
        raise UserError(
            f"`{own.as_posix()}` has limits already",
            where=str(short(target)),
            hint=f"edit them; its baseline is written again with `bertshrink gate --update {own.as_posix()}`",
        )
    first = examine(Gated(own.as_posix(), own, None, (), "--init"), target.parent, report)
    if known is None:
        text = first_config(own, its_report, first.readings)
    else:
        before = target.read_text(encoding="utf-8-sig")
        text = with_artifact(before, target.name, own, its_report, first.readings, str(short(target)))
    write_text(target, text)
    typer.echo(text, nl=False)
    typer.echo(f"wrote {short(target)}")
    found_config = read_config(short(target))
    chosen = [one for one in found_config.gated if one.name == own.as_posix()]
    return _update(found_config, [look_at(one, target.parent, report, False) for one in chosen], None, None)


def _seen_from(path: Path, folder: Path) -> Path:
    """A path relative to a folder that it is in; as it is anywhere else."""
    whole = path.resolve()
    return whole.relative_to(folder) if whole.is_relative_to(folder) else whole


def _write(
    judgement: Judgement, examined: list[Examined], junit: Place, comment_file: Place, openmetrics: Place
) -> None:
    from bertshrink.files.atomic import write_text
    from bertshrink.gates.show import json_openmetrics, markdown
    from bertshrink.gates.show import junit as junit_xml

    if junit is not None:
        write_text(junit, junit_xml.render(judgement))
    if comment_file is not None:
        write_text(comment_file, markdown.render(judgement, markdown.COMMENT_BYTES))
    if openmetrics is not None:
        write_text(openmetrics, json_openmetrics.to_openmetrics(examined))


def _print(judgement: Judgement, as_json: bool, markdown: bool) -> None:
    from bertshrink.gates.show import json_openmetrics, terminal
    from bertshrink.gates.show import markdown as markdown_text

    if as_json:
        typer.echo(json_openmetrics.to_json(judgement), nl=False)
    elif markdown:
        typer.echo(markdown_text.render(judgement), nl=False)
    else:
        from rich.console import Console

        Console(soft_wrap=False).print(terminal.render(judgement))


def _is_github() -> bool:
    return os.environ.get("GITHUB_ACTIONS") == "true"


def _tell_github(judgement: Judgement) -> None:
    """Annotations on stderr, which a runner reads too, so that stdout stays the result; the step's summary."""
    from bertshrink.gates.show import github, markdown

    if _is_github():
        root = Path(os.environ.get("GITHUB_WORKSPACE") or Path.cwd())
        for line in github.commands(judgement, root):
            typer.echo(line, err=True)
    summary = os.environ.get("GITHUB_STEP_SUMMARY")
    if summary:
        from bertshrink.files.atomic import output_errors

        path = Path(summary)
        with output_errors(path):
            taken = path.stat().st_size if path.is_file() else 0
            with path.open("a", encoding="utf-8") as file:
                file.write(markdown.render(judgement, max(0, github.SUMMARY_BYTES - taken)))


def _annotate_error(error: BertshrinkError) -> None:
    """A gate that could not judge, as annotations: whoever looks at the pull request must see it."""
    if not _is_github():
        return
    from bertshrink.gates.show import github

    root = Path(os.environ.get("GITHUB_WORKSPACE") or Path.cwd())
    for fault in error.faults if isinstance(error, UserErrors) else (error,):
        print(github.error(fault.what, fault.where, fault.hint, root), file=sys.stderr)  # noqa: T201
