"""The weights of a checkpoint: one safetensors file, or several that an index names.

    model.safetensors               what counts where both are there, as for transformers
    model.safetensors.index.json    {"metadata": {"total_size": bytes}, "weight_map": {tensor: file of this folder}}

The index and the headers must say the same: every tensor once, in the file that the index names, and as many bytes in
all. Files are taken from the index's own folder only; a link is followed within a hub cache, as in `safe_open`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from bertshrink.errors import UnsafeModel, listed
from bertshrink.files.atomic import sha256_file
from bertshrink.files.headers import FileFacts, file_facts, read_header
from bertshrink.files.json_files import read_object
from bertshrink.files.safe_open import blob_of
from bertshrink.files.scratch_folder import is_of_process

WEIGHTS = "model.safetensors"
INDEX = f"{WEIGHTS}.index.json"
_ENDING = ".safetensors"
_HINT = "download the whole model, or save it in one file: `model.save_pretrained(DIR, max_shard_size='100GB')`"

Header = dict[str, dict[str, Any]]


def weight_file(folder: Path) -> Path:
    """The file by which a checkpoint's weights are found: the one file, or the index of several."""
    index = folder / INDEX
    return index if index.exists() and not (folder / WEIGHTS).exists() else folder / WEIGHTS


def weight_files(folder: Path) -> tuple[Path, ...]:
    """All files of a checkpoint's weights, the index first where there is one; none of them is opened but the index.

    Raises:
        UnsafeModel: the index is damaged, or names a file that is missing or outside of its folder.
    """
    file = weight_file(folder)
    if file.name != INDEX:
        return (file,) if file.is_file() else ()
    return (file, *(folder / name for name in shard_names(file)))


def shard_names(index: Path) -> list[str]:
    """The files that an index names, sorted.

    Raises:
        UnsafeModel: the index is damaged, or names what is not a safetensors file of its folder.
    """
    names = sorted(set(_weight_map(index).values()))
    for name in names:
        is_plain = name.endswith(_ENDING) and Path(name).name == name and "\\" not in name and "\0" not in name
        if not is_plain:
            _refuse(f"the index names `{name[:100]}`, which is not a safetensors file of its own folder", index)
    return names


def read_weights(folder: Path) -> Header:
    """Tensor name -> {dtype, shape, data_offsets} of a checkpoint's weights, offsets within the tensor's own file.

    Raises:
        UnsafeModel: a file is damaged or missing, or the index does not say what the files hold.
    """
    file = weight_file(folder)
    if file.name != INDEX:
        return read_header(file)
    places, header, stored_in = _weight_map(file), Header(), dict[str, str]()
    names = shard_names(file)
    missing = [f"`{name}`" for name in names if not (folder / name).is_file()]
    if missing:
        _refuse(
            f"the index names {listed(missing)}, and the folder lacks {'it' if len(missing) == 1 else 'them'}", file
        )
    for name in names:
        shard = folder / name
        if shard.is_symlink() and not is_of_process(folder):
            blob_of(shard)
        for tensor, about in read_header(shard).items():
            if tensor in header:
                _refuse(f"the tensor `{tensor[:100]}` is in two files, `{stored_in[tensor]}` and `{name}`", file)
            if places.get(tensor) != name:
                said = f"in `{places[tensor]}`" if tensor in places else "nowhere"
                _refuse(f"the tensor `{tensor[:100]}` is in `{name}`, and {said} according to the index", file)
            header[tensor], stored_in[tensor] = about, name
    absent = [f"`{tensor[:100]}`" for tensor in places if tensor not in header]
    if absent:
        _refuse(f"the index names tensors that no file holds: {listed(absent)}", file)
    _check_total(file, sum(about["data_offsets"][1] - about["data_offsets"][0] for about in header.values()))
    return header


def read_weight_facts(folder: Path) -> FileFacts:
    """What a checkpoint's weights hold, of all files together; raises UnsafeModel as `read_weights`."""
    header = read_weights(folder)
    return file_facts(header, sum(path.stat().st_size for path in weight_files(folder)))


def sha256_weights(files: Sequence[Path]) -> str:
    """The sha256 of one file; of several, that of a list of their names and sums, in the order given."""
    if len(files) == 1:
        return sha256_file(files[0])
    lines = "".join(f"{sha256_file(path)}  {path.name}\n" for path in files)
    return hashlib.sha256(lines.encode()).hexdigest()


def _weight_map(index: Path) -> dict[str, str]:
    about = read_object(index)
    places = about.get("weight_map")
    if not isinstance(places, dict) or not places or not all(isinstance(name, str) for name in places.values()):
        _refuse("the index of the weights has no `weight_map` from tensors to files", index)
    if not isinstance(about.get("metadata"), Mapping):
        _refuse("the index of the weights has no `metadata`, without which transformers does not read it", index)
    return places


def _check_total(index: Path, num_bytes: int) -> None:
    stated = read_object(index)["metadata"].get("total_size", num_bytes)
    if stated != num_bytes:
        _refuse(
            f"`total_size` of the index is {str(stated)[:40]}, and its files hold {num_bytes} bytes of tensors", index
        )


def _refuse(what: str, index: Path) -> NoReturn:
    raise UnsafeModel(what, where=str(index), hint=_HINT)
