"""How a model is made smaller: the table of techniques, in the order a recipe would use them.

To add one: a folder here with its settings class (no torch at import), its row in this table, its tests.
"""

from bertshrink.techniques.base import Technique
from bertshrink.techniques.distill import Distill
from bertshrink.techniques.export import Export
from bertshrink.techniques.factorize import Factorize
from bertshrink.techniques.finetune import Finetune
from bertshrink.techniques.pretrain import Pretrain
from bertshrink.techniques.quantize import Quantize
from bertshrink.techniques.share import Share

TECHNIQUES: dict[str, type[Technique]] = {
    technique.name: technique for technique in (Pretrain, Finetune, Factorize, Share, Distill, Export, Quantize)
}
