"""`bertshrink inspect`: what a model is made of and what could shrink, with `--size` every road to a size, and with
`--attention` what its heads do.

The first two are told from headers and sizes alone, in a second; only to compare it with reference vectors the model is
loaded. Heads are looked at in the model itself, on texts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from bertshrink import units
from bertshrink.cli.run import print_json
from bertshrink.errors import UserError
from bertshrink.files.atomic import check_name, write_text
from bertshrink.files.headers import file_facts, read_onnx, read_safetensors
from bertshrink.files.shards import weight_files
from bertshrink.model.artifact import Artifact
from bertshrink.model.checkpoint_info import CheckpointInfo, check_task, check_weights
from bertshrink.model.checks.weight_names import notes_on
from bertshrink.model.checks.weight_sizes import check_sizes
from bertshrink.model.folder.layer_weights import check_layers, layer_files
from bertshrink.model.model_ref import ModelRef
from bertshrink.model.sizes.components import count_components
from bertshrink.model.sizes.size_estimate import Sizes, of_encoder, of_file
from bertshrink.recipe.size_options import FORMATS, Roads, roads
from bertshrink.sources.resolve import fetch_weights, find_model
from bertshrink.techniques import TECHNIQUES

if TYPE_CHECKING:
    from bertshrink.files.headers import FileFacts
    from bertshrink.progress import Progress
    from bertshrink.report.attention import AttentionReport

FLOPS_LENGTHS = (16, 128, 512)
_SHOWN = 12
"""Roads in the table; all of them are in the JSON."""


def inspect_model(name: str, task: str, as_json: bool, reference: str | None = None) -> None:
    """Print the table, or one JSON document, of a model that is used for `task` (a name in `TASKS`, or `auto`).

    Args:
        reference: as of `find_model`.

    Raises:
        BertshrinkError: no such model, an unknown family, a refused file, other vectors than the reference's.
    """
    facts = facts_of(name, task, reference)
    if as_json:
        print_json(facts)
        return
    _print(name, facts)


def facts_of(name: str, task: str, reference: str | None = None) -> dict[str, Any]:
    """What a model is made of, as JSON values; arguments and errors as of `inspect_model`."""
    model = fetch_weights(find_model_for(name, task, reference), to_run=False)
    if not isinstance(model.about, CheckpointInfo):
        return _artifact(model)
    with model.named_as_given():
        facts = _encoder(model.about)
    facts["notes"] += [model.compared()] if model.reference is not None else []
    return facts


def find_model_for(name: str, task: str, reference: str | None = None) -> ModelRef:
    """A model that is used for what `--task` says; errors as of `find_model`."""
    check_task(task, "--task")
    return find_model(name, task=task, reference=reference)


def _encoder(facts: CheckpointInfo) -> dict[str, Any]:
    header = check_weights(facts.folder)
    check_sizes(facts, header)
    check_layers(facts.folder, facts.pooling)
    behind = [read_safetensors(path) for path in layer_files(facts.folder, facts.pooling)]
    stored = file_facts(header, sum(path.stat().st_size for path in weight_files(facts.folder)))
    again = {f"{facts.anatomy.masked_head.decoder}.{part}" for part in ("weight", "bias")}  # tied: counted by others
    ties = facts.config.get("tie_word_embeddings", facts.anatomy.ties_words)
    again = set() if ties is False else again - {facts.anatomy.masked_head.bias}
    tensors = [
        (one.name, one.num_elements if one.is_countable and one.name not in again else 0, one.num_bytes)
        for facts_of_file in (stored, *behind)
        for one in facts_of_file.tensors
    ]
    shape = facts.shape
    parts = count_components(facts.anatomy, tensors)
    return {
        "kind": "encoder",
        "family": facts.anatomy.family,
        "task": facts.task,
        "labels": list(facts.labels),
        "shape": {
            "layers": shape.num_layers,
            **({"groups of shared layers": shape.num_groups} if facts.anatomy.is_shared else {}),
            "hidden size": shape.hidden_size,
            "attention heads": shape.num_heads,
            "intermediate size": shape.intermediate_size,
            "vocabulary": shape.vocab_size,
            "embedding size": shape.embedding_size,
            "longest input": facts.max_length,
        },
        "num_bytes": sum(facts_of_file.num_bytes for facts_of_file in (stored, *behind)),
        "num_parameters": sum(elements for _, elements, _ in tensors),
        "components": {part: {"num_parameters": n, "num_bytes": b} for part, (n, b) in parts.items()},
        "notes": [*facts.notes, *notes_on(header)],
        "flops_per_token": {
            str(n): flops
            for n in FLOPS_LENGTHS
            if n <= facts.max_length and (flops := shape.flops_per_token(n)) is not None
        },
        "could_shrink": _advice(facts, parts),
    }


def _advice(facts: CheckpointInfo, parts: dict[str, tuple[int, int]]) -> list[str]:
    """What could be done, each with what it would save, from the sizes alone."""
    shape = facts.shape
    total = sum(n for n, _ in parts.values())
    layers = sum(parts.get(part, (0, 0))[0] for part in ("attention", "feed-forward"))
    savings = []
    half = shape.num_layers // 2
    if half:
        share = 0.0 if facts.anatomy.is_shared else layers * (1 - half / shape.num_layers) / total
        saving = f"{100 * share:.0f} % of the parameters and half the work" if share else "half the work, no parameters"
        savings.append(f"`distill --layers {half}` saves {saving}")
    before = of_encoder(facts)
    exported = TECHNIQUES["export"]().sizes(before) if before is not None else None
    after = TECHNIQUES["quantize"]().sizes(exported) if exported is not None else None
    if before is not None and after is not None:
        share = after.num_bytes / before.num_bytes
        savings.append(f"`quantize` to int8 takes {units.format(after.num_bytes, 'B')}, {share:.2f}x the float32 bytes")
    embedding = parts.get("embeddings", (0, 0))[0]
    if embedding > 0.3 * total:
        savings.append(f"the embeddings are {100 * embedding / total:.0f} % of the parameters and none of the work")
    return savings


def _artifact(model: ModelRef) -> dict[str, Any]:
    from bertshrink.model.artifact import Artifact
    from bertshrink.model.fixed_shape_session import shape_words
    from bertshrink.sources.probe_process import read_header_in_subprocess

    card = Artifact.load(model.folder).card
    facts: FileFacts | None = read_header_in_subprocess(model.file) if card.format == "onnx" else None
    types: dict[str, int] = {}
    for tensor in facts.tensors if facts is not None else ():
        types[tensor.dtype] = types.get(tensor.dtype, 0) + tensor.num_bytes
    return {
        "kind": "artifact",
        "family": card.family,
        "task": card.task,
        "is_task_known": card.is_task_known,
        "labels": list(card.labels),
        "shape": {
            "format": card.format,
            "precision": card.precision,
            "engine": card.engine,
            "longest input": card.max_length,
            "vocabulary": card.vocab_size,
            **({"batch x length": f"{shape_words(card.shape)} only"} if card.shape else {}),
            **({"largest batch": card.max_batch} if card.max_batch else {}),
        },
        "num_bytes": facts.num_bytes if facts is not None else model.file.stat().st_size,
        "bytes_by_type": types,
        "operators": dict(facts.operators) if facts is not None else {},
        "lineage": list(card.lineage),
        "could_shrink": _advice_of_file(facts, card.family),
    }


def _advice_of_file(facts: FileFacts | None, family: str) -> list[str]:
    before = of_file(facts, family) if facts is not None else None
    after = TECHNIQUES["quantize"]().sizes(before) if before is not None else None
    if before is None or after is None:
        return []
    share = after.num_bytes / before.num_bytes
    return [f"`quantize` to int8 takes {units.format(after.num_bytes, 'B')}, {share:.2f}x the bytes"]


def _print(name: str, facts: dict[str, Any]) -> None:
    from rich.console import Console

    from bertshrink.report.table.window import Fitting

    console = Console()
    guessed = "" if facts.get("is_task_known", True) else " (a guess: nothing says it; `--task` names it)"
    title = f"{name}: {facts['family']} {facts['kind']} for {facts['task']}{guessed}"
    console.print(title, highlight=False, markup=False, soft_wrap=True)
    shape = [(key, str(value)) for key, value in facts["shape"].items()]
    shape.append(("size", units.format(facts["num_bytes"], "B")))
    if "num_parameters" in facts:
        shape.append(("parameters", units.format(facts["num_parameters"], "count")))
        for length, flops in facts["flops_per_token"].items():
            shape.append((f"operations per token at {length}", units.format(flops, "count")))
    if facts["labels"]:
        shape.append(("labels", ", ".join(facts["labels"])))
    console.print(Fitting((), shape))
    console.print()
    if "components" in facts:
        rows = [
            (
                part,
                units.format(sizes["num_parameters"], "count"),
                f"{100 * sizes['num_parameters'] / max(1, facts['num_parameters']):.1f}%",
                units.format(sizes["num_bytes"], "B"),
            )
            for part, sizes in facts["components"].items()
        ]
        console.print(Fitting(("component", "parameters", "share", "bytes"), rows, numbers=(1, 2, 3)))
    elif facts["bytes_by_type"]:
        kinds = sorted(facts["bytes_by_type"].items(), key=lambda item: -item[1])
        console.print(Fitting(("type", "bytes"), [(kind, units.format(n, "B")) for kind, n in kinds], numbers=(1,)))
    for note in facts.get("notes", ()):
        console.print(f"\n- {note}", highlight=False, markup=False)
    if facts["could_shrink"]:
        console.print("\nwhat could shrink", highlight=False)
        for line in facts["could_shrink"]:
            console.print(f"  {line}", highlight=False, markup=False)


def show_roads(name: str, task: str, size: str, as_json: bool, reference: str | None = None) -> None:
    """Print which layers, width of tables and number format together fit into a size, with the commands.

    Raises:
        BertshrinkError: no such model, one whose sizes are unknown, no size, or vectors to compare with.
    """
    if reference is not None:
        what = "`--size` tells of sizes, for which no weight is loaded to compare vectors"
        raise UserError(what, where="--reference", hint="leave out one of the two")
    try:
        limit = units.size(size)
    except ValueError as error:
        raise UserError(str(error), where="--size", hint="write it as `10 MB`") from None
    options = roads(_start_of(name, task), limit)
    if as_json:
        print_json(_document_of_roads(name, options))
        return
    _print_roads(name, options)


def show_attention(
    name: str,
    asked: Mapping[str, Any],
    about_texts: Mapping[str, Any],
    *,
    base: str | None,
    output: Path | None,
    as_json: bool,
    progress: Progress,
) -> None:
    """Look at an encoder's heads; write the page, and print where it is, or one JSON document.

    Args:
        asked: `data` and `task`, as of a recipe.
        about_texts: settings of `data` beside where it is.
        base: what the model was fine-tuned from.
        output: file of the page; None: `NAME-attention.html` here, or with `as_json` no page.

    Raises:
        BertshrinkError: as of `attention_of`; the place is taken by a folder or not writable.
    """
    page = output
    if page is None and not as_json:
        page = Path(f"{Path(name).name or 'model'}-attention.html")
    if page is not None:
        refuse_place(page)
    report = attention_of(name, asked, about_texts, base=base, progress=progress)
    if page is not None:
        write_page(page, report)
    if as_json:
        typer.echo(report.to_json(), nl=False)
        return
    _print_attention(report, page)


def attention_of(
    name: str, asked: Mapping[str, Any], about_texts: Mapping[str, Any], *, base: str | None, progress: Progress
) -> AttentionReport:
    """What the heads of an encoder do; arguments as of `show_attention`.

    Raises:
        BertshrinkError: no such model or data, a file for an engine, a family whose heads cannot be told apart, labels
            that are not the model's.
    """
    from bertshrink.pipeline.requirements import require_ml
    from bertshrink.recipe.from_command_line import recipe_of_bench

    if asked.get("data") is None:
        what = "heads are looked at on texts, and none are given"
        raise UserError(what, where="--attention", hint="give them with `--data`; with labels, losses can be told")
    require_ml()
    recipe = recipe_of_bench([name], dict(asked), about_texts)
    model = find_model_for(name, asked.get("task") or "auto")
    if not isinstance(model.about, CheckpointInfo):
        what = f"`{name}` is a file for an engine: its heads cannot be seen"
        raise UserError(what, where="MODEL", hint="give the encoder that it was made from")
    from bertshrink.data.labels.checks import check_texts
    from bertshrink.data.load import read_texts
    from bertshrink.meters.attention.head_hooks import refuse_unknown_heads
    from bertshrink.meters.attention.inspection import JUDGED_TEXTS, inspect_heads
    from bertshrink.model.encoder import Encoder

    refuse_unknown_heads(model.about.anatomy, name)
    first = find_model(base, "--base", is_base=True) if base is not None else None
    if first is not None and not isinstance(first.about, CheckpointInfo):
        what = f"`{base}` is a file for an engine: its heads cannot be seen"
        raise UserError(what, where="--base", hint="give the encoder that the model was fine-tuned from")
    assert recipe.data is not None
    task, data = model.about.task, recipe.data
    data = data.model_copy(update={"max_dev": data.max_dev or JUDGED_TEXTS})
    texts = read_texts(data, task).as_read(task)
    for line in texts.notes:
        progress.log(line)
    check_texts(texts, task, model.about.labels, needs_labels=False)
    from bertshrink.model.quiet import quiet_libraries

    encoder = fetch_weights(model).load()
    other = fetch_weights(first).load() if first is not None else None
    assert isinstance(encoder, Encoder) and not isinstance(other, Artifact)
    with quiet_libraries():
        return inspect_heads(
            encoder, texts, progress, max_length=data.max_length, seed=recipe.seed, base=other, notes=texts.notes
        )


def write_page(page: Path, report: AttentionReport) -> None:
    """Write what heads do as a page. Raises OutputError: it cannot be written, or would be too large."""
    from bertshrink.report.render.attention_page import render

    write_text(page, render(report))


def refuse_place(page: Path) -> None:
    """Prove beforehand that a page can be there: what it shows takes minutes. Raises UserError: it cannot."""
    check_name(page)
    if page.is_dir():
        raise UserError(f"`{page}` is a folder", where="-o", hint="name a file, as attention.html")
    if not page.parent.is_dir():
        raise UserError(f"there is no folder `{page.parent}`", where="-o", hint="make it first, or name another place")


def _print_attention(report: AttentionReport, page: Path | None) -> None:
    from rich.console import Console

    from bertshrink.report.attention import ROLES, WAYS
    from bertshrink.report.render.attention_page import curve_words

    console = Console()

    def line(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    number = len(report.heads)
    line(f"{report.model}: {len(report.layers)} layers of {report.num_heads} heads, {report.task}")
    against = "" if report.is_labelled else ", agreement with the undisturbed model: nothing is labelled"
    line(f"{report.metric} {report.undisturbed:.4f} on {report.num_judged} texts{against}")
    for role in ROLES:
        of_role = sum(head.role == role for head in report.heads)
        if of_role:
            line(f"  {role}: {of_role} heads, {100 * of_role / number:.0f} %")
    for way in WAYS if report.is_labelled else ():
        worse = sum(head.effects[way].finding == "worse" for head in report.heads)
        line(f"one head {way}: a loss is shown of {worse} of {number} (paired tests, Holm)")
    for words in curve_words(report):
        line(words)
    if page is not None:
        line(f"page: {page}")


def _start_of(name: str, task: str) -> CheckpointInfo | Sizes:
    model = find_model_for(name, task)
    card = model.about
    if isinstance(card, CheckpointInfo):
        return card
    sizes = of_file(read_onnx(model.file), card.family) if card.format == "onnx" else None
    if sizes is None or not sizes.is_float:
        what = f"`{name}` is {card.precision} in the format {card.format}: it cannot be made into another"
        raise UserError(what, where="--size", hint="give the encoder that it was made from")
    return sizes


def _document_of_roads(name: str, options: Roads) -> dict[str, Any]:
    fit = [
        {key: value for key, value in asdict(road).items() if not key.startswith("cuts")}
        | {"commands": road.commands(name)}
        for road in options.fit
    ]
    return {
        "model": name,
        "limit": options.limit,
        "num_bytes": options.now,
        "fit": fit,
        "least_of_misses": options.misses,
    }


def _print_roads(name: str, options: Roads) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()

    def line(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    limit = units.format(options.limit, "B")
    line(f"{name}: {units.format(options.now, 'B')} in float32; estimated from sizes alone, right within 2 %")
    line(f"what fits into {limit}, smallest change first:\n" if options.fit else f"nothing fits into {limit}")
    rows = Table(box=None, pad_edge=False)
    for column, side in (("", "right"), ("layers", "right"), ("rank", "right"), ("format", "left"), ("size", "right")):
        rows.add_column(column, justify=side)  # type: ignore[arg-type]
    shown = options.fit[:_SHOWN]
    for number, road in enumerate(shown, start=1):
        layers, rank = ("-" if value is None else str(value) for value in (road.layers, road.rank))
        rows.add_row(str(number), layers, rank, road.format, units.format(road.num_bytes, "B"))
    if shown:
        console.print(rows)
    if len(options.fit) > _SHOWN:
        line(f"   and {len(options.fit) - _SHOWN} more, with larger changes: `--json` lists all")
    for format_ in FORMATS:
        if format_ in options.misses:
            line(f"   not in {format_}: {units.format(options.misses[format_], 'B')} at least")
    for number, road in enumerate(shown, start=1):
        commands = road.commands(name) or ["nothing to do: it fits as it is"]
        line(f"\n{number}  {commands[0]}" + "".join(f"\n   {command}" for command in commands[1:]))
