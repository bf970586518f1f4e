"""How much work one forward pass is, from a model's file alone, and how many ARM instructions that makes.

multiply-adds   B L (W + A L): W of all matrices that tokens are multiplied with, A = layers x 2 x hidden size for
                the scores and the mixing of attention. Heads that see one token only are counted as if they saw
                all, softmax, norms and activations are left out: together some per cent.
bytes           of all weights that one pass reads: all but the tables of embeddings, of which it reads rows
instructions    multiply-adds / those that ONNX Runtime's kernels do per instruction (`KERNELS`), 25 % more or less
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bertshrink.errors import UserError
from bertshrink.files.headers import read_onnx
from bertshrink.files.json_files import read_object
from bertshrink.files.shards import read_weight_facts
from bertshrink.meters.size import onnx_components, products
from bertshrink.model.families import anatomy_of
from bertshrink.model.sizes.components import count_components
from bertshrink.model.sizes.encoder_dims import EncoderDims

if TYPE_CHECKING:
    from bertshrink.worker.job import RunSpec

Span = tuple[float, float]

KERNELS: dict[str, dict[str, Span]] = {
    # class of cores: kind of weights: multiply-adds per instruction
    "a53": {"float": (2.80, 2.85), "int8": (3.30, 3.41), "int4": (1.60, 3.41)},
    "a72": {"float": (2.80, 2.85), "int8": (3.30, 3.41), "int4": (1.60, 3.41)},
    "a76": {"float": (2.80, 2.85), "int8": (6.50, 7.10), "int4": (4.10, 5.20)},
    "armv8.6": {"float": (2.80, 2.85), "int8": (8.30, 9.50), "int4": (5.60, 7.20)},
}
"""Counted under qemu-user with ONNX Runtime 1.24.1 on all-MiniLM-L6-v2 at 16 and 128 tokens (171.0 and 1,434 million
multiply-adds). 4 bits were counted at 16 tokens on a76 and armv8.6 only: the rest is a guess, and wide."""

WIDER = 1.25
"""What other models' norms, activations and shapes may change about it, either way."""


@dataclass(frozen=True)
class Work:
    """What one forward pass does.

    Attributes:
        weight_macs: W, per token.
        attention_macs: A, per token and token that it looks at.
        weight_bytes: of all weights but embeddings.
    """

    weight_macs: int
    attention_macs: int
    weight_bytes: int

    def macs(self, batch: int, length: int) -> int:
        """Multiply-adds of one pass over `batch` rows of `length` tokens."""
        return batch * length * (self.weight_macs + self.attention_macs * length)

    def instructions(self, isa: str, precision: str, batch: int, length: int) -> Span:
        """Bounds of the instructions of one pass on cores of a class."""
        rates = [KERNELS[isa][kind] for kind in kinds(precision)]
        macs = self.macs(batch, length)
        return macs / (max(high for _, high in rates) * WIDER), macs / (min(low for low, _ in rates) / WIDER)


def kinds(precision: str) -> list[str]:
    """The kinds of kernels behind a precision: `int4+int8` is both; 16 bits are stored, float32 is multiplied."""
    return sorted({part if part in ("int8", "int4") else "float" for part in precision.split("+")})


def work_of(launch: RunSpec) -> Work:
    """Read a model's work off its file.

    Raises:
        UserError: a format whose insides are its engine's own.
        UnsafeModel: the file is damaged.
    """
    if launch.path.is_dir():
        return _of_checkpoint(launch.path)
    if launch.path.suffix != ".onnx":
        raise UserError(
            f"`{launch.path.name}` does not contain a readable graph",
            hint="use the .onnx file it was made from",
        )
    facts = read_onnx(launch.path)
    stored, num_computed = products(facts)
    hidden = Counter(small for small, _ in stored).most_common(1)[0][0] if stored else 0
    num_bytes = sum(part.num_bytes for part in onnx_components(facts) if part.name != "embeddings")
    return Work(sum(small * large for small, large in stored), num_computed * hidden, num_bytes)


def _of_checkpoint(folder: Path) -> Work:
    config = read_object(folder / "config.json")
    anatomy = anatomy_of(str(config.get("model_type")), str(folder))
    shape = EncoderDims.read(anatomy, config)
    tensors = ((t.name, t.num_elements, t.num_bytes) for t in read_weight_facts(folder).tensors)
    parts = count_components(anatomy, tensors)
    num_bytes = sum(size for name, (_, size) in parts.items() if name != "embeddings")
    products = shape.flops_per_token(0)
    if products is None:
        raise UserError(
            f"the work of a {anatomy.title} is not known from its sizes",
            where=str(folder),
            hint="export it: what an ONNX file does is read off its graph",
        )
    return Work(products // 2, shape.num_scores * shape.num_layers * shape.attention_size, num_bytes)
