"""Where an artifact's files are: one layout, which those who load models from folders look for.

    onnx/model.onnx               float weights                     optimum, sentence-transformers, fastembed,
    onnx/model_quantized.onnx     what `quantize` makes             transformers.js (there `dtype: "q8"`)
    onnx/model.onnx_data          the weights of model.onnx, where one file cannot hold both; likewise of the other
    onnx/model.ort                ONNX Runtime's own format
    executorch/model.pte          a program for ExecuTorch

Everything else is at the root: the configuration, the tokenizer, a sentence encoder's modules, the card.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from bertshrink.files.atomic import is_sealed

PLACES = {"onnx": "onnx/model.onnx", "ort": "onnx/model.ort", "pte": "executorch/model.pte"}
"""Format -> the file of a model in it."""

QUANTIZED = "onnx/model_quantized.onnx"

_FOLDERS = tuple(dict.fromkeys(str(PurePosixPath(place).parent) for place in PLACES.values()))


def engine_files(folder: Path) -> list[Path]:
    """The files for engines in a folder of whatever origin, whatever they are called, and in its `onnx/`."""
    places = (folder, *(folder / name for name in _FOLDERS))
    return [path for place in places for path in sorted(place.glob("*.*")) if path.suffix[1:] in PLACES]


def root_of(file: Path) -> Path:
    """The folder whose layout has this file: its own, or of `onnx/FILE` the one above."""
    folder = file.absolute().parent
    return folder.parent if folder.name in _FOLDERS else folder


def sealed_root(file: Path) -> Path | None:
    """The folder whose manifest lists this file; None where there is none, and nobody answers for its bytes."""
    for folder in dict.fromkeys((file.absolute().parent, root_of(file))):
        if is_sealed(folder, (file.absolute().relative_to(folder).as_posix(),)):
            return folder
    return None


def named_file(folder: Path, name: object) -> Path | None:
    """The file of a folder that a card names; None where it names none, or one that is elsewhere."""
    if not isinstance(name, str):
        return None
    parts = PurePosixPath(name)
    is_inside = bool(parts.parts) and not parts.is_absolute() and ".." not in parts.parts and "\\" not in name
    return folder / parts if is_inside and (folder / parts).is_file() else None
