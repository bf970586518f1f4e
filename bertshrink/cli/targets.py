"""`bertshrink targets`: where models can be run, what of it is missing, and how to get it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from bertshrink.cli.help import CONTEXT, HelpCommand, group
from bertshrink.cli.options import INPUT, OUTPUT, Json, Quiet, Task, option
from bertshrink.cli.streams import result_stands
from bertshrink.errors import UserError

if TYPE_CHECKING:
    from bertshrink.report.table.window import Fitting
    from bertshrink.worker.job import RunSpec

targets_app = group("List, prepare and calibrate the targets that models run on.")


EXAMPLES = {"arm64": "arm64:a76", "profile": "profile:pi5"}
"""Kinds that need a name and run here: one of each can be looked at."""


@targets_app.command("list", cls=HelpCommand, context_settings=CONTEXT)
def list_targets(as_json: Json = False) -> None:
    """Show the targets, and what is missing for each."""
    from bertshrink.cli.run import print_json

    states = look()
    if as_json:
        print_json(states)
        return
    from rich.console import Console

    console = Console()
    console.print(table(states))
    for line in missing(states):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


@targets_app.command("setup", cls=HelpCommand, context_settings=CONTEXT)
def set_up(
    kind: Annotated[str, typer.Argument(help="what to prepare: arm64")],
    mirror: Annotated[str | None, option(INPUT, "--mirror", metavar="URL", help="another Debian mirror")] = None,
    force: Annotated[bool, option(OUTPUT, "--force", help="prepare it again even if it exists")] = False,
    quiet: Quiet = False,
) -> None:
    """Prepare a target that needs it: arm64 gets Python and ONNX Runtime for ARM, about 48 MB from Debian and PyPI."""
    from bertshrink.cli.progress import make_progress
    from bertshrink.errors import did_you_mean
    from bertshrink.meters.targets import kind_of
    from bertshrink.meters.targets.arm64.pins import MIRROR
    from bertshrink.meters.targets.arm64.setup import prepare

    if kind_of(kind) != "arm64":
        raise UserError(f"`{kind}` needs no preparation", hint=did_you_mean(kind, ["arm64"]))
    root = prepare(make_progress(quiet), mirror or MIRROR, force=force)
    result_stands()
    typer.echo(root.folder)


@targets_app.command("calibrate", cls=HelpCommand, context_settings=CONTEXT)
def calibrate_device(
    target: Annotated[str, typer.Argument(help="the device, as ssh://pi@board")],
    profile: Annotated[
        str, option(INPUT, "--profile", metavar="NAME", help="device profile whose assumed rates are replaced, as pi5")
    ],
    model: Annotated[
        str | None, typer.Argument(help="model to measure with; default: a generated one, for ONNX Runtime")
    ] = None,
    task: Task = None,
    quiet: Quiet = False,
) -> None:
    """Measure a device's clock, IPC and bandwidth, and write a device file of your own with them."""
    from bertshrink.cli.progress import make_progress
    from bertshrink.files.scratch_folder import scratch_folder
    from bertshrink.meters.targets.profile.calibrate import MADE, calibrate, made_model
    from bertshrink.meters.targets.profile.device import read_device, write_device
    from bertshrink.meters.targets.ssh import SshRunner
    from bertshrink.meters.targets.ssh.address import Address

    if not target.startswith("ssh://"):
        raise UserError(f"`{target}` is not a device that can be measured", hint="write it as ssh://user@host")
    device, address = read_device(profile), Address.read(target)
    progress = make_progress(quiet)
    with scratch_folder() as scratch:
        name, launch = (MADE, made_model(scratch)) if model is None else (model, _launch(model, task or "auto"))
        with SshRunner.connect(address) as machine:
            calibrated = calibrate(machine, device, launch, name, progress)
    path = write_device(profile, calibrated)
    result_stands()
    low, high = calibrated.ipc.value
    slow, fast = calibrated.bandwidth_gbs.value
    typer.echo(
        f"{calibrated.name}: {calibrated.ghz.value:.2f} GHz, IPC {low:.2f} to {high:.2f}, {slow:.1f} to {fast:.1f} GB/s"
    )
    typer.echo(f"device: {path}")


def _launch(name: str, task: str) -> RunSpec:
    from bertshrink.pipeline.requirements import require_ml

    require_ml()
    from bertshrink.meters.latency.launch import launch_of
    from bertshrink.sources.resolve import fetch_weights, find_model

    model = fetch_weights(find_model(name, task=task))
    return launch_of(model.load(), model.folder)


def look() -> list[dict[str, Any]]:
    """Every kind of target: whether it is ready, and if not, what is missing and how to get it.

    What runs elsewhere is looked at when it is asked for: `ready` is None.
    """
    from bertshrink.errors import MissingDependency
    from bertshrink.meters.targets import TARGETS, open_target

    rows = []
    for name, kind in TARGETS.items():
        row: dict[str, Any] = {"target": name, "what": kind.what, "ready": None, "missing": None}
        if kind.is_here or name in EXAMPLES:
            try:
                open_target(EXAMPLES.get(name, name)).check({})
                row["ready"] = True
            except MissingDependency as error:
                row |= {"ready": False, "missing": {"what": error.what, "where": error.where, "hint": error.hint}}
        rows.append(row)
    return rows


def table(targets: list[dict[str, Any]]) -> Fitting:
    """The targets as a table."""
    from bertshrink.report.table.window import Fitting

    states = {True: "ready", False: "missing", None: "when asked for"}
    rows = [(row["target"], states[row["ready"]], row["what"]) for row in targets]
    return Fitting(("target", "state", "what it is"), rows)


def missing(targets: list[dict[str, Any]]) -> list[str]:
    """A line for each target that is not ready."""
    lacks = {row["target"]: row["missing"] for row in targets if row["missing"]}
    return [f"for {name}: {lack['what']}; {lack['hint']}" for name, lack in lacks.items()]
