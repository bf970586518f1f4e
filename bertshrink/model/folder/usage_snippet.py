"""A few lines of Python that use a model's folder, whatever is in it: printed beside its path, kept in its README.md.

Texts of any length work in all of them: the tokenizer's files say where to cut.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from bertshrink.model.artifact import ArtifactCard
from bertshrink.model.folder.sentence_modules import MODULES
from bertshrink.model.tasks import TASKS, TaskSpec

if TYPE_CHECKING:
    from bertshrink.model.model_ref import ModelRef

_TEXTS = ("one text", "another text")
_PAIR = ("a question?", "a text that answers it")

_SENTENCES = """\
from sentence_transformers import SentenceTransformer

vectors = SentenceTransformer({folder}).encode({texts})
"""
_SPARSE = """\
from sentence_transformers import SparseEncoder

vectors = SparseEncoder({folder}).encode({texts})
"""
_CHECKPOINT = """\
from transformers import {kind}, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained({folder})
model = {kind}.from_pretrained({folder})
outputs = model(**tokenizer({texts}, padding=True, truncation=True, return_tensors="pt"))
"""
_LABELS_OF_FILE = """\
names = AutoConfig.from_pretrained({folder}).id2label
labels = [names[i] for i in logits.argmax(-1).tolist()]
"""
_LABELS = "labels = [model.config.id2label[i] for i in outputs.logits.argmax(-1).tolist()]\n"
_SCORES = "scores = outputs.logits.sigmoid()\n"
_SCORES_OF_ARRAYS = "scores = 1 / (1 + numpy.exp(-logits))\n"
_ONNXRUNTIME = """\
import onnxruntime
from transformers import AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained({folder})
session = onnxruntime.InferenceSession({file})
tokens = tokenizer({texts}, padding={padding}, truncation=True, return_tensors="np")
{targets} = session.run({outputs}, {{i.name: tokens[i.name] for i in session.get_inputs()}})
"""
_OPENVINO = """\
import openvino
from transformers import AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained({folder})
model = openvino.Core().compile_model({file}, "CPU")
tokens = tokenizer({texts}, padding={padding}, truncation=True, return_tensors="np")
found = model({{i.get_any_name(): tokens[i.get_any_name()] for i in model.inputs}})
{targets} = (found[name] for name in {outputs})
"""
_EXECUTORCH = """\
from executorch.runtime import Runtime
from transformers import AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained({folder})
program = Runtime.get().load_program({file})
tokens = tokenizer({texts}, padding={padding}, truncation=True, return_tensors="pt")
found = program.load_method("forward").execute([tokens[name] for name in {inputs}])
{targets} = (found[at] for at in {places})
"""
_OF_ENGINES = {"onnxruntime": _ONNXRUNTIME, "openvino": _OPENVINO, "executorch": _EXECUTORCH}


def usage(model: ModelRef, name: str) -> str:
    """The lines for a model whose folder bertshrink wrote; they should open it at the path `name`."""
    if isinstance(model.about, ArtifactCard):
        return _artifact(model.about, name)
    task = TASKS[model.about.task]
    if task.is_vector and (model.folder / MODULES).is_file():
        return (_SENTENCES if task.is_bare else _SPARSE).format(folder=_quoted(name), texts=_listed(_TEXTS))
    lines = _CHECKPOINT.format(kind=task.auto_class, folder=_quoted(name), texts=_texts(task))
    lines += _SCORES if model.about.activation == "sigmoid" else ""
    return lines + (_LABELS if task.learns_from == "class" else "")


def _artifact(card: ArtifactCard, name: str) -> str:
    task = TASKS[card.task]
    outputs = task.outputs
    targets = "vectors" if task.is_vector else ", ".join(outputs)
    lines = _OF_ENGINES[card.engine].format(
        folder=_quoted(name),
        file=_quoted(f"{name}/{card.file}"),
        texts=_texts(task, card.prompt, card.shape[0] if card.shape else None),
        padding="True" if card.shape is None or card.shape[1] is None else '"max_length"',
        inputs=_listed(card.inputs),
        outputs=_listed(outputs),
        places=[card.outputs.index(output) for output in outputs],
        targets=f"({targets},)" if len(outputs) == 1 else targets,
    )
    if card.activation == "sigmoid":
        has_tensors = card.engine == "executorch"
        lines = lines + _SCORES.replace("outputs.", "") if has_tensors else f"import numpy\n{lines}{_SCORES_OF_ARRAYS}"
    if task.learns_from != "class":
        return lines
    return lines.replace("import AutoT", "import AutoConfig, AutoT") + _LABELS_OF_FILE.format(folder=_quoted(name))


def _texts(task: TaskSpec, prompt: str = "", batch: int | None = None) -> str:
    """A batch of texts, as a tokenizer's arguments."""
    if task.reads_context:
        return ", ".join(_listed((text,), batch) for text in _PAIR)
    return _listed([prompt + text for text in _TEXTS], batch)


def _listed(texts: tuple[str, ...] | list[str], batch: int | None = None) -> str:
    """Python's list of texts; of a fixed number of rows, the first text as often."""
    if batch is not None and batch != len(texts):
        return f"[{_quoted(texts[0])}] * {batch}"
    return f"[{', '.join(_quoted(text) for text in texts)}]"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
