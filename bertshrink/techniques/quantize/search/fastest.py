"""Choice carried out: the candidates of `autotune` made, compared and timed on a real model, and one of them taken."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from typing import Any

from bertshrink import units
from bertshrink.errors import BertshrinkError, CheckFailed
from bertshrink.files.headers import read_onnx
from bertshrink.hardware import cpu_flags
from bertshrink.model.sizes.size_estimate import TOLERANCE, Sizes, of_file
from bertshrink.techniques.quantize.schemes import uniform
from bertshrink.techniques.quantize.search.autotune import (
    FLOAT,
    Candidate,
    Limits,
    Trial,
    bfloat16_wins,
    candidates,
    choose,
    describe_cpu,
    rows,
    sentence,
)
from bertshrink.techniques.quantize.search.trials import BuiltVariant, VariantBuilder


def choose_fastest(trials: VariantBuilder) -> tuple[BuiltVariant, dict[str, Any]]:
    """The candidate that the limits and the clock choose, and the measurements of all.

    Raises:
        CheckFailed: none is within the limits, or none runs.
    """
    settings, bench = trials.settings, trials.bench
    flags = cpu_flags()
    wanted = candidates(trials.before.card.engine, flags)
    all_tried = too_large(trials, wanted)
    limits = Limits(settings.min_cosine, settings.largest_drop, settings.largest_size)
    left = [one for one in wanted if one not in [other.candidate for other in all_tried]]
    if any(one.scheme != FLOAT for one in left) or not all_tried:
        with bench.progress.task("try schemes", total=len(left), unit="schemes") as task:
            for candidate in left:
                all_tried.append(attempt(trials, candidate))
                task.advance(1, scheme=candidate.name)
        time_all(trials, all_tried)
    chosen = choose(all_tried, limits)
    bench.note(describe_cpu(flags))
    told = rows(all_tried, chosen, limits)
    bench.notes += [sentence(row) for row in told]
    if said := bfloat16_wins(all_tried):
        bench.note(said)
    if chosen is None or chosen.built is None:
        for one in all_tried:
            if one.built is not None:
                one.built.artifact.write_papers(one.built.artifact.folder)
        raise CheckFailed(
            "no scheme is within the limits: "
            + "; ".join(f"{one.candidate.name}: {limits.broken_by(one)}" for one in all_tried),
            where=str(bench.work),
            hint="the attempts are kept there; loosen `min_cosine`, `max_metric_drop` or `max_size`",
        )
    for one, row in zip(all_tried, told, strict=True):
        if one is chosen or one.built is None:
            continue
        if row["on_front"]:
            bench.baseline(one.candidate.name, f"tried: {one.candidate.name}", one.built.artifact)
        else:
            shutil.rmtree(one.built.artifact.folder)
    return chosen.built, {"scheme": chosen.candidate.name, "types": dict(chosen.built.types), "tried": told}


def too_large(trials: VariantBuilder, wanted: Sequence[Candidate]) -> list[Trial]:
    """The candidates that need not be made: by their sizes alone they are beyond the limit.

    The float file stays among those that are made, as what all others are compared with, unless nothing else is left.
    """
    settings, limit = trials.settings, trials.settings.largest_size
    before = of_file(read_onnx(trials.before.file), trials.before.card.family) if limit is not None else None
    if limit is None or before is None:
        return []
    refused = []
    for one in wanted:
        sizes: Sizes | None = before
        if one.scheme != FLOAT:
            update = {"auto": False, "max_size": None, "scheme": one.scheme, "embeddings": one.embeddings}
            sizes = settings.model_copy(update=update).sizes(before)
        if sizes is not None and sizes.num_bytes > limit * (1 + TOLERANCE):
            size, most = (units.format(value, "B") for value in (sizes.num_bytes, limit))
            refused.append(Trial(one, failure=f"not made: {size} are more than {most}"))
    others = [one for one in refused if one.candidate.scheme != FLOAT]
    return refused if len(refused) == len(wanted) else others


def attempt(trials: VariantBuilder, candidate: Candidate) -> Trial:
    """Make one candidate and compare it; what cannot be made or run is told, not raised."""
    update: dict[str, Any] = {"scheme": candidate.scheme, "embeddings": candidate.embeddings}
    if candidate.scheme == FLOAT:
        update = {}
    settings = trials.settings.model_copy(update=update)
    types = {} if candidate.scheme == FLOAT else uniform(trials.source, candidate.scheme, settings)
    folder = "candidate-" + "".join(c if c.isalnum() else "-" for c in candidate.name)
    if (kept := trials.kept(folder, types)) is not None:
        built, drop = kept
        return Trial(candidate, built.size_bytes, float(built.agreement["cosine"]), drop, built=built)
    try:
        built, _ = trials.make_good(types, folder, settings, candidate.options)
        drop = trials.drop(built) if trials.figure is not None else None
    except BertshrinkError as error:
        return Trial(candidate, failure=f"it cannot be made: {error.what}")
    except Exception as error:  # an engine's own, which has no public home that all engines share
        return Trial(candidate, failure=f"it does not run: {str(error).strip().splitlines()[0][:200]}")
    trials.keep(built, drop)
    return Trial(candidate, built.size_bytes, float(built.agreement["cosine"]), drop, built=built)


def time_all(trials: VariantBuilder, all_tried: list[Trial]) -> None:
    """Time all candidates that run, side by side."""
    measure = trials.bench.measure
    assert measure is not None, "whoever lets a stage choose by measurement gives it something to measure with"
    latencies = measure({one.candidate.name: one.built.artifact for one in all_tried if one.built is not None})
    for one in all_tried:
        entries = latencies.get(one.candidate.name, [])
        one.latency = tuple(entry for entry in entries if entry.metric == "latency")
