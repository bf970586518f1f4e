"""Heads inside a model in memory: where each is, and how it is disabled or weighed, by hooks that leave no trace.

    zeroed      a head's slice at the input of attention's output projection is 0: what pruning it would do
    uniform     the slice is the mean of the head's values over the text's tokens: attention of 1 / L to each of them
                (arXiv:1908.08593, section 3)
    factors     the slice is multiplied; of a factor's gradient importance is made (arXiv:1905.10650)

No attention map is needed for any of them, so a model keeps its fast attention. A layer whose weights several layers
share counts each time it is used.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bertshrink.errors import UserError
from bertshrink.model.families import FAMILIES, shared_group

if TYPE_CHECKING:
    import torch

    from bertshrink.model.encoder import Encoder
    from bertshrink.model.family import ModelFamily


def refuse_unknown_heads(family: ModelFamily, where: str) -> None:
    """Refuse a family whose layers are made of others. Raises UserError: it is one."""
    if family.layer is None:
        known = ", ".join(row.title for row in FAMILIES.values() if row.layer is not None)
        raise UserError(
            f"the heads of {family.title} cannot be told apart: its layers are not plain attention and feed-forward",
            where=where,
            hint=f"look at a model of {known}",
        )


@dataclass(frozen=True)
class Site:
    """The attention of one layer.

    Attributes:
        value: the module whose outputs hold the values, (B, L, ...).
        mix: the module that the heads' outputs (B, L, A D) go into.
        use: how often the modules were used before in the same forward pass.
    """

    value: torch.nn.Module
    mix: torch.nn.Module
    use: int


@dataclass(frozen=True)
class Heads:
    """All heads of a model: N layers of A heads.

    Attributes:
        sites: one a layer.
        num_heads: A.
        columns: (first, last) of the values among their module's outputs, last excluded.
        num_values: how many heads have values of their own; the others share them in equal groups.
    """

    model: Any
    sites: tuple[Site, ...]
    num_heads: int
    columns: tuple[int, int]
    num_values: int

    @classmethod
    def of(cls, encoder: Encoder) -> Heads:
        """The heads of an encoder. Raises UserError: they cannot be told apart."""
        family, dims = encoder.anatomy, encoder.shape
        refuse_unknown_heads(family, encoder.source)
        assert family.layer is not None
        sites: list[Site] = []
        seen: Counter[str] = Counter()
        for number in range(dims.num_layers):
            group = shared_group(number, dims.num_layers, dims.num_groups) if family.is_shared else number
            path = f"{encoder.prefix}{family.path_of_layer(group)}"
            layer = encoder.model.get_submodule(path)
            modules = layer.get_submodule(family.layer.value), layer.get_submodule(family.layer.mix)
            sites.append(Site(*modules, seen[path]))
            seen[path] += 1
        widths = {"query": dims.attention_size, "key": dims.key_value_size, "value": dims.key_value_size}
        roles = family.layer.modules()[family.layer.value]
        before = sum(widths[role] for role in roles[: roles.index("value")])
        columns = before, before + dims.key_value_size
        return cls(encoder.model, tuple(sites), dims.num_heads, columns, dims.num_key_value_heads or dims.num_heads)

    @property
    def num_layers(self) -> int:
        """N."""
        return len(self.sites)

    @contextmanager
    def factors(self, factors: torch.Tensor) -> Iterator[None]:
        """Multiply every head's output, for as long as the block runs.

        Args:
            factors: (N, A), or (N, B, A) for each text of a batch its own; a gradient reaches them.
        """
        with self._hooked(factors, None):
            yield

    @contextmanager
    def uniform(self, chosen_NA: torch.Tensor) -> Iterator[None]:
        """Have the chosen heads (N, A; true: chosen) look at all tokens of the text alike, while the block runs."""
        with self._hooked(None, chosen_NA):
            yield

    @contextmanager
    def _hooked(self, factors: torch.Tensor | None, chosen_NA: torch.Tensor | None) -> Iterator[None]:
        numbers = {(site.mix, site.use): number for number, site in enumerate(self.sites)}
        uses: Counter[torch.nn.Module] = Counter()
        means: dict[torch.nn.Module, torch.Tensor] = {}
        mask: list[torch.Tensor | None] = [None]

        def begin(module: Any, args: Any, given: dict[str, Any]) -> None:
            uses.clear()
            mask[0] = given.get("attention_mask")

        def keep(module: torch.nn.Module, args: Any, out: torch.Tensor) -> None:
            values_BLV = out[..., slice(*self.columns)]
            shown = mask[0]
            weight_BL1 = values_BLV.new_ones((*values_BLV.shape[:2], 1)) if shown is None else shown.unsqueeze(-1)
            weight_BL1 = weight_BL1.to(values_BLV.dtype)
            mean_BV = (values_BLV * weight_BL1).sum(dim=1) / weight_BL1.sum(dim=1).clamp(min=1)
            mean_BKD = mean_BV.view(len(mean_BV), self.num_values, -1)
            means[module] = mean_BKD.repeat_interleave(self.num_heads // self.num_values, dim=1)

        def change(module: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
            number = numbers[module, uses[module]]
            uses[module] += 1
            out_BLAD = args[0].reshape(*args[0].shape[:-1], self.num_heads, -1)
            if factors is not None:
                own = factors[number].to(out_BLAD.dtype)
                out_BLAD = out_BLAD * (own[:, None, :, None] if own.dim() == 2 else own[:, None])
            if chosen_NA is not None and bool(chosen_NA[number].any()):
                mean_B1AD = means[self.sites[number].value].unsqueeze(1)
                import torch

                out_BLAD = torch.where(chosen_NA[number].to(out_BLAD.device)[:, None], mean_B1AD, out_BLAD)
            return (out_BLAD.flatten(-2), *args[1:])

        hooks = [self.model.register_forward_pre_hook(begin, with_kwargs=True)]
        try:
            hooks += [mix.register_forward_pre_hook(change) for mix in {site.mix for site in self.sites}]
            if chosen_NA is not None:
                hooks += [value.register_forward_hook(keep) for value in {site.value for site in self.sites}]
            yield
        finally:
            for hook in hooks:
                hook.remove()
