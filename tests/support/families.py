"""Families of encoders in tests: which have a task or a technique, and which stand for others."""

from bertshrink.model.families import FAMILIES
from bertshrink.model.tasks import TASKS

SELDOM = {
    *("camembert", "ernie", "megatron-bert", "xlm-roberta-xl", "rembert", "squeezebert", "convbert"),
    *("nomic_bert", "jina_embeddings_v3", "xlm-roberta"),
}
"""Families whose classes do what another family's do, or that are seldom met: tested with `--matrix`."""

CONVERTED = [name for name, row in FAMILIES.items() if row.shared_as is not None]
"""Families whose models become others, with narrow tables or layers that share weights."""

NARROWED = [name for name, row in FAMILIES.items() if row.narrow_as is not None]
"""Families whose tables can be made narrow."""

THINNED = [name for name, row in FAMILIES.items() if row.layer is not None]
"""Families whose layers can be made thinner."""


def serves(family: str, task: str) -> bool:
    """Whether a stock class of the family has the task."""
    return FAMILIES[family].answer_head is not None or not TASKS[task].reads_context


SERVED = [(family, task) for family in FAMILIES for task in TASKS if serves(family, task)]
"""Every family with every task that it has."""
