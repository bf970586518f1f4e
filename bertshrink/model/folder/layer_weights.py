"""The weights of a sentence encoder's own layers, in their modules' folders: `2_Dense/model.safetensors`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from bertshrink.errors import UnsafeModel, UserError
from bertshrink.files.headers import read_header
from bertshrink.model.folder.pooling import AGAIN

if TYPE_CHECKING:
    from torch import nn

    from bertshrink.model.folder.pooling import Pooling

WEIGHTS = "model.safetensors"
_PICKLE = "pytorch_model.bin"


def layer_files(folder: Path, pooling: Pooling | None) -> list[Path]:
    """The files that hold weights of a sentence encoder's layers, whether they are there or not."""
    return [folder / layer.path / WEIGHTS for layer in (pooling.layers if pooling is not None else ()) if layer.path]


def check_layers(folder: Path, pooling: Pooling | None) -> None:
    """Prove that the layers' weights may be loaded.

    Raises:
        UnsafeModel: a pickle, or a damaged file.
        UserError: no weights at all.
    """
    for path in layer_files(folder, pooling):
        if path.is_file():
            read_header(path)
            continue
        pickle = path.with_name(_PICKLE)
        if pickle.exists():
            raise UnsafeModel(
                f"the weights of `{path.parent.name}` are a pickle (`{_PICKLE}`), which can run arbitrary code when "
                "loaded",
                where=str(pickle),
                hint="if you trust it, `SentenceTransformer(DIR).save(NEW)` writes safetensors",
            )
        raise UserError(f"`{path.parent.name}` has no weights: `{WEIGHTS}` is missing", where=str(path), hint=AGAIN)


def load_layers(folder: Path, pooling: Pooling | None) -> nn.ModuleList:
    """The layers in float32, in eval mode; none where there are none.

    Raises:
        UnsafeModel: as `check_layers`; weights of other sizes than the module says, or not finite.
        UserError: as `check_layers`.
    """
    from bertshrink.engines.sentence_layers import load

    check_layers(folder, pooling)
    described = [layer.spec for layer in pooling.layers] if pooling is not None else []
    try:
        layers = load(described, folder)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        what = f"the weights of a layer behind the pooling are not what its config.json says: {reason}"
        raise UnsafeModel(what, where=str(folder), hint=AGAIN) from error
    for name, tensor in layers.state_dict().items():
        if not bool(tensor.isfinite().all()):
            raise UnsafeModel(
                f"the weight `{name}` of the layers behind the pooling holds values that are not finite",
                where=str(folder),
                hint="its training diverged or the file is damaged: take an earlier checkpoint",
            )
    return layers


def save_layers(layers: Iterable[nn.Module], pooling: Pooling, folder: Path) -> None:
    """Write the layers' weights into their folders, which must be there."""
    from safetensors.torch import save_file

    for one, layer in zip(pooling.layers, layers, strict=True):
        if one.path:
            weights = {name: tensor.detach().cpu().contiguous() for name, tensor in layer.state_dict().items()}
            save_file(weights, folder / one.path / WEIGHTS, metadata={"format": "pt"})
