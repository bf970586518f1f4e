"""What a student is taught by: a teacher's outputs, hidden states, and queries, keys and values of its layers."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from bertshrink.engines.torch_session import of_tokens, pool
from bertshrink.model.families import anatomy_of
from bertshrink.model.tasks import TASKS

if TYPE_CHECKING:
    from bertshrink.model.encoder import Encoder
    from bertshrink.model.family import LayerNames
    from bertshrink.model.folder.pooling import Pooling


@dataclass(frozen=True)
class Wanted:
    """What an objective reads of a model.

    Attributes:
        states: hidden states by number; 0 is the embeddings' output, i layer i's.
        layers: layers, counted from 1, whose queries, keys and values are read.
    """

    outputs: bool
    states: tuple[int, ...] = ()
    layers: tuple[int, ...] = ()


@dataclass
class Answers:
    """What a model says to a batch.

    Attributes:
        outputs: by the names in `TASKS`.
        states: (B, L, H) by number.
        layers: queries, keys and values, each (B, L, H), by layer.
    """

    outputs: dict[str, Tensor] = field(default_factory=dict)
    states: dict[int, Tensor] = field(default_factory=dict)
    layers: dict[int, tuple[Tensor, Tensor, Tensor]] = field(default_factory=dict)


def run_model(
    model: Any,
    inputs: Mapping[str, Tensor],
    wanted: Wanted,
    task: str,
    pooling: Pooling | None,
    layers: Iterable[nn.Module] = (),
) -> Answers:
    """Run a model once and take what is wanted.

    Args:
        inputs: ids and masks, each (B, L).
        layers: behind the pooling.
    """
    row = anatomy_of(model.config.model_type)
    with projections(model, row.layer if wanted.layers else None) as seen:
        out = model(**inputs, output_hidden_states=bool(wanted.states))
    answers = Answers(states={number: out.hidden_states[number] for number in wanted.states})
    if wanted.outputs and TASKS[task].is_vector:
        assert pooling is not None
        whole = replace(pooling, active=None).spec  # numbers that are cut teach nothing
        vectors = pool(of_tokens(out).float(), inputs["attention_mask"], *whole, layers=layers).float()
        answers.outputs = {"sentence_embedding": vectors}
    elif wanted.outputs:
        answers.outputs = {name: out[name] for name in TASKS[task].outputs}
    if wanted.layers:
        num_layers = getattr(model.config, row.field("num_hidden_layers"))
        # A layer that projects its distances, too, does so after its tokens.
        query, key, value = (kept[:: len(kept) // num_layers] for kept in seen)
        answers.layers = {layer: (query[layer - 1], key[layer - 1], value[layer - 1]) for layer in wanted.layers}
    return answers


@contextmanager
def projections(
    model: nn.Module, names: LayerNames | None
) -> Iterator[tuple[list[Tensor], list[Tensor], list[Tensor]]]:
    """While it is open, what the model's layers make of queries, keys and values, in the order in which they run.

    `names` are those of the family; None: nothing is kept. The modules are listened to, so that any implementation of
    attention serves, and a layer that is shared (ALBERT) is heard as often as it runs.
    """
    seen: tuple[list[Tensor], list[Tensor], list[Tensor]] = ([], [], [])

    def keep(into: list[Tensor], at: int, number: int) -> Callable[..., None]:
        return lambda module, given, out: into.append(out.chunk(number, dim=-1)[at])

    wanted = (names.query, names.key, names.value) if names else ()
    handles = [
        module.register_forward_hook(keep(into, wanted[:at].count(path), wanted.count(path)))
        for name, module in (model.named_modules() if names else ())
        for at, (path, into) in enumerate(zip(wanted, seen, strict=False))
        if name.endswith(f".{path}")
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


class LiveTeacher:
    """A frozen copy of a model that answers every batch again.

    Args:
        wanted: what is read of it.
        dtype: of its weights and arithmetic.
    """

    def __init__(self, encoder: Encoder, wanted: Wanted, dtype: torch.dtype = torch.float32) -> None:
        self.task = encoder.task
        self.pooling = encoder.pooling
        self.wanted = wanted
        self.layers = copy.deepcopy(encoder.layers or nn.ModuleList()).requires_grad_(False)
        self.module: Any = copy.deepcopy(encoder.model).to(dtype).eval().requires_grad_(False)

    def __deepcopy__(self, memo: object) -> LiveTeacher:
        """Itself: it is frozen, and large."""
        return self

    def __call__(self, inputs: Mapping[str, Tensor], rows_B: Tensor | None) -> Answers:
        """Its answers to a batch; `rows_B` are the rows' numbers, which it does not need."""
        with torch.no_grad():
            return run_model(self.module, inputs, self.wanted, self.task, self.pooling, self.layers)
