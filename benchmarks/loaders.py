"""Do other libraries load what bertshrink writes, and give its numbers? A matrix of loaders, each with its cosine.

    python benchmarks/loaders.py FOLDER [FOLDER ...] [--cache .cache/loaders] [--only NAME ...]

FOLDER is what `export`, `quantize` or `distill` wrote at `-o`. Loaders:

    tokenizers            ONNX Runtime and the package `tokenizers`, nothing of transformers
    transformers          ONNX Runtime and transformers' tokenizer
    openvino              OpenVINO and `tokenizers`
    sentence-transformers its PyTorch backend, of checkpoints
    st-onnx               sentence-transformers' ONNX backend     in an environment with optimum-onnx, which wants
    optimum               optimum's ORTModelFor* classes          transformers 4: not beside transformers 5
    st-4, transformers-4  checkpoints in that environment
    fastembed             a custom model from a local path        in an environment of its own
    transformers.js       a pipeline in Node                      in a package of its own
    ort                   ONNX Runtime and `tokenizers`, of `.ort` files

Environments are made once, below `--cache`, by pip and npm (npm without install scripts: what they would fetch is for
GPUs). Each loader runs in a process of its own, offline, folder by folder, and gives vectors or logits of the same
texts: short ones, one of many scripts, an empty one, one of more tokens than the model takes, which every loader cuts
by what the folder's files say. They are compared with bertshrink's own of that folder, text by text; shown are the
least cosine of the texts that fit and that of the long one, or what the loader says when it fails. `family_loaders.py`
asks the same of every family.

Texts go one by one: what int8 activations are rounded to hangs on the whole batch, padding too. Of float files all
texts go as one batch as well, which shows that padding is right. Output: a table, as the last line one JSON document;
exit code 1 where a loader fails or short texts differ. transformers.js cuts a text without keeping its last token, so
that its vector of the long one is another's; OpenVINO rounds int8 in its own way.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

Question = tuple[str, str, list[list[str]]]
"""A folder, the model's file in it, and batches of texts."""
Vectors = list[list[float]]
Said = tuple[float, float] | str

TEXTS = [
    "A surprisingly good film.",
    "Prices rose by 3.5 % in 2019; wages did not, and nobody in the square was glad of it!",
    "Ein Fünftel der Züge fährt über Köln. 東京は大きい。 Ça va?",
    "",
    " ".join(f"Sentence {at} says that the ferry runs on Tuesdays only." for at in range(120)),
]

_PYTHON = """
import json, sys
{code}
with open(sys.argv[2], "w") as out:
    for question in json.load(open(sys.argv[1])):
        try:
            said = answer(*question)
        except Exception as error:
            said = f"{{type(error).__name__}}: {{error}}"
        print(json.dumps(said), file=out, flush=True)
"""
_FILE = """
import numpy as np
{imports}
def answer(folder, file, batches):
    about = json.load(open(folder + "/artifact.json"))
    name = "sentence_embedding" if about["task"] == "embedding" else "logits"
    {begin}
    found = []
    for texts in batches:
        ids, mask, types = {tokens}
        given = dict(input_ids=ids, attention_mask=mask, token_type_ids=types)
        found += {run}.tolist()
    return found
"""
_TOKENIZERS = (
    "(np.array([getattr(e, k) for e in tokenizer.encode_batch(texts)]) for k in ('ids', 'attention_mask', 'type_ids'))"
)
_FROM_FILE = "tokenizer = tokenizers.Tokenizer.from_file(folder + '/tokenizer.json')\n    "
_ORT = "session = onnxruntime.InferenceSession(file)\n    known = [i.name for i in session.get_inputs()]"
_RUN_ORT = "session.run([name], {key: given[key] for key in known})[0]"


def _of_file(*, imports: str, begin: str, tokens: str, run: str) -> str:
    return _PYTHON.format(code=_FILE.format(imports=imports, begin=begin, tokens=tokens, run=run))


TOKENIZERS = _of_file(
    imports="import onnxruntime, tokenizers", begin=_FROM_FILE + _ORT, tokens=_TOKENIZERS, run=_RUN_ORT
)
OPENVINO = _of_file(
    imports="import openvino, tokenizers",
    begin=_FROM_FILE + "model = openvino.Core().compile_model(file, 'CPU', {'INFERENCE_PRECISION_HINT': 'f32'})\n"
    "    known = [i.get_any_name() for i in model.inputs]",
    tokens=_TOKENIZERS,
    run="model({key: given[key] for key in known})[name]",
)
TRANSFORMERS = _of_file(
    imports="import onnxruntime, transformers",
    begin="tokenizer = transformers.AutoTokenizer.from_pretrained(folder)\n    " + _ORT,
    tokens="map(np.array, (lambda t: (t['input_ids'], t['attention_mask'], t.get('token_type_ids')))("
    "tokenizer(texts, padding=True, truncation=True)))",
    run=_RUN_ORT,
)
_SENTENCES = """
from sentence_transformers import SentenceTransformer
def answer(folder, file, batches):
    model = SentenceTransformer(folder, device="cpu", **{more})
    return [vector for texts in batches for vector in model.encode(texts, batch_size=len(texts)).tolist()]
"""
SENTENCES = _PYTHON.format(code=_SENTENCES.format(more="{}"))
SENTENCES_ONNX = _PYTHON.format(
    code=_SENTENCES.format(
        more="dict(backend='onnx', model_kwargs=dict("
        "file_name=file.rpartition('/')[2], provider='CPUExecutionProvider'))"
    )
)
_STOCK = """
import torch, transformers
{imports}
def answer(folder, file, batches):
    {begin}
    model = {model}.from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    found = []
    for texts in batches:
        given = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
        with torch.inference_mode():
            out = model(**given)
        if task != "embedding":
            found += out.logits.tolist()
            continue
        mask = given["attention_mask"].unsqueeze(-1).float()
        mean = (out.last_hidden_state * mask).sum(1) / mask.sum(1)
        found += torch.nn.functional.normalize(mean, dim=-1).tolist()
    return found
"""
OPTIMUM = _PYTHON.format(
    code=_STOCK.format(
        imports="import optimum.onnxruntime",
        begin="task = json.load(open(folder + '/artifact.json'))['task']\n"
        "    kind = {'embedding': 'FeatureExtraction', 'token-classification': 'TokenClassification',\n"
        "        'question-answering': 'QuestionAnswering', 'mlm': 'MaskedLM'}.get(task, 'SequenceClassification')",
        model="getattr(optimum.onnxruntime, 'ORTModelFor' + kind)",
    )
)
CHECKPOINT = _PYTHON.format(
    code=_STOCK.format(
        imports="import os",
        begin="task = 'embedding' if os.path.isfile(folder + '/modules.json') else 'classification'",
        model="(transformers.AutoModel if task == 'embedding' else transformers.AutoModelForSequenceClassification)",
    )
)
FASTEMBED = _PYTHON.format(
    code="""
from fastembed import TextEmbedding
from fastembed.common.model_description import ModelSource, PoolingType
def answer(folder, file, batches):
    about = json.load(open(folder + "/artifact.json"))
    width = json.load(open(folder + "/1_Pooling/config.json"))["word_embedding_dimension"]
    try:
        TextEmbedding.add_custom_model(folder, pooling=PoolingType.MEAN, normalization=about["pooling"][1], dim=width,
            sources=ModelSource(url="local"), model_file=about["file"])
    except ValueError:  # it knows the folder from the question before
        pass
    model = TextEmbedding(folder, specific_model_path=folder)
    return [vector.tolist() for texts in batches for vector in model.embed(texts, batch_size=len(texts))]
"""
)
JAVASCRIPT = """
import { env, pipeline, AutoModelForSequenceClassification, AutoTokenizer } from "@huggingface/transformers";
import { appendFileSync, readFileSync, writeFileSync } from "node:fs";
import { basename, dirname } from "node:path";
env.allowRemoteModels = false;
async function answer(folder, file, batches) {
  const { task, pooling } = JSON.parse(readFileSync(folder + "/artifact.json"));
  env.localModelPath = dirname(folder);
  const dtype = file.endsWith("model_quantized.onnx") ? "q8" : "fp32";
  const found = [];
  if (task === "embedding") {
    const embed = await pipeline("feature-extraction", basename(folder), { dtype });
    for (const texts of batches)
      found.push(...(await embed(texts, { pooling: pooling[0], normalize: pooling[1] })).tolist());
  } else {
    const tokenizer = await AutoTokenizer.from_pretrained(basename(folder));
    const model = await AutoModelForSequenceClassification.from_pretrained(basename(folder), { dtype });
    for (const texts of batches)
      found.push(...(await model(await tokenizer(texts, { padding: true, truncation: true }))).logits.tolist());
  }
  return found;
}
writeFileSync(process.argv[3], "");
for (const question of JSON.parse(readFileSync(process.argv[2])))
  appendFileSync(process.argv[3], JSON.stringify(await answer(...question).catch(String)) + "\\n");
"""


@dataclass(frozen=True)
class Subject:
    """A folder that loaders are asked for.

    Attributes:
        folder: where it is.
        file: the path of the model's file in it.
        task: what it is for.
        form: `checkpoint`, or the format of an artifact's file: `onnx`, `ort`.
        is_rounded: whether the file rounds activations to integers.
    """

    folder: Path
    file: str
    task: str
    form: str
    is_rounded: bool

    @property
    def ways(self) -> tuple[str, ...]:
        """How its texts are given."""
        return ("one by one",) if self.is_rounded else ("one by one", "one batch")


@dataclass(frozen=True)
class Loader:
    """One library's way to a model.

    Attributes:
        code: what is run, with the question as JSON and the place of the answers.
        home: the environment: `here`, or one below the cache.
        takes: whether it is for a folder.
        rounds_alike: whether it runs an int8 file with ONNX Runtime's numbers.
    """

    code: str
    home: str
    takes: Callable[[Subject], bool]
    rounds_alike: bool = True


def _onnx(subject: Subject) -> bool:
    return subject.form == "onnx"


def _sentence_onnx(subject: Subject) -> bool:
    return subject.form == "onnx" and subject.task == "embedding"


def _ort(subject: Subject) -> bool:
    return subject.form == "ort"


def _checkpoint(subject: Subject) -> bool:
    return subject.form == "checkpoint"


def _sentence_checkpoint(subject: Subject) -> bool:
    return subject.form == "checkpoint" and subject.task == "embedding"


LOADERS = {
    "tokenizers": Loader(TOKENIZERS, "fastembed", _onnx),
    "transformers": Loader(TRANSFORMERS, "here", _onnx),
    "openvino": Loader(OPENVINO, "here", _onnx, rounds_alike=False),
    "sentence-transformers": Loader(SENTENCES, "here", _sentence_checkpoint),
    "st-4": Loader(SENTENCES, "optimum", _sentence_checkpoint),
    "transformers-4": Loader(CHECKPOINT, "optimum", _checkpoint),
    "st-onnx": Loader(SENTENCES_ONNX, "optimum", _sentence_onnx),
    "optimum": Loader(OPTIMUM, "optimum", _onnx),
    "fastembed": Loader(FASTEMBED, "fastembed", _sentence_onnx),
    "transformers.js": Loader(JAVASCRIPT, "node", _onnx),
    "ort": Loader(TOKENIZERS, "fastembed", _ort),
}
PACKAGES = {
    "optimum": ["optimum-onnx[onnxruntime]==0.1.0", "sentence-transformers<6", "torch"],
    "fastembed": ["fastembed"],
    "node": ["@huggingface/transformers"],
}


def python_of(home: str, cache: Path) -> list[str]:
    """The command that runs code of an environment, which is made where it is missing."""
    if home == "here":
        return [sys.executable]
    folder = cache / home
    if home == "node":
        if not (folder / "node_modules").is_dir():
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "package.json").write_text('{"private": true, "type": "module"}')
            subprocess.run(["npm", "install", "--ignore-scripts", *PACKAGES[home]], cwd=folder, check=True)
        return ["node"]
    python = folder / "bin" / "python"
    if not (folder / ".made").is_file():
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *PACKAGES[home]], check=True)
        (folder / ".made").touch()
    return [str(python)]


def answers(loader: Loader, questions: list[Question], cache: Path) -> list[Vectors | str]:
    """What a loader makes of the texts of each question, or what it says; one process, unless a question ends it."""
    command, place = python_of(loader.home, cache), cache / loader.home
    place.mkdir(parents=True, exist_ok=True)
    code = place / ("asked.mjs" if loader.home == "node" else "asked.py")
    asked, out = place / "questions.json", place / "answers.jsonl"
    code.write_text(loader.code, encoding="utf-8")
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    found: list[Vectors | str] = []
    while len(found) < len(questions):
        asked.write_text(json.dumps(questions[len(found) :]), encoding="utf-8")
        out.write_text("")
        done = subprocess.run(
            [*command, str(code), str(asked), str(out)],
            env=os.environ | offline,
            capture_output=True,
            text=True,
            check=False,
        )
        found += [json.loads(line) for line in out.read_text().splitlines()]
        if len(found) < len(questions):
            lines = [line for line in done.stderr.splitlines() if line.strip()] or [f"exit code {done.returncode}"]
            found.append(next((line for line in lines if "Error" in line), lines[-1]))
    return found


def subject_of(folder: Path) -> Subject:
    """What the folder holds."""
    from bertshrink.model.artifact import Artifact
    from bertshrink.model.model_ref import ModelRef

    model = ModelRef.read(folder).load()
    if isinstance(model, Artifact):
        return Subject(folder, model.card.file, model.task, model.card.format, "int" in model.card.precision)
    return Subject(folder, "model.safetensors", model.task, "checkpoint", is_rounded=False)


def own_answers(folder: Path, batches: list[list[str]]) -> Vectors:
    """bertshrink's own vectors or logits."""
    from bertshrink.model.batches import pad
    from bertshrink.model.model_ref import ModelRef

    model = ModelRef.read(folder).load()
    session, found = model.session(), []
    name = "sentence_embedding" if model.task == "embedding" else "logits"
    for texts in batches:
        feeds = pad(model.tokenize(texts), model.tokenizer.pad_token_id)
        found += session.run(feeds)[name].tolist()
    return found


def cosines(mine: Vectors, theirs: Vectors) -> Said:
    """The least cosine of the vectors of texts that fit, and that of the long text; or that they differ in shape."""
    a, b = np.array(mine, dtype=np.float64), np.array(theirs, dtype=np.float64)
    if a.shape != b.shape:
        return f"shapes differ: {a.shape} and {b.shape}"
    found = np.sum(a * b, -1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)
    return float(found[:-1].min()), float(found[-1])


def compare(
    subjects: list[Subject], names: list[str], texts: list[str], cache: Path
) -> Iterator[tuple[Subject, str, str, Said]]:
    """Ask loaders for the folders that they are for; the last text is the long one.

    Yields:
        the folder, the way in which texts were given, the loader, and the two cosines or what it says.
    """
    batches = {"one by one": [[text] for text in texts], "one batch": [texts]}
    own = {(subject, way): own_answers(subject.folder, batches[way]) for subject in subjects for way in subject.ways}
    for name in names:
        loader = LOADERS[name]
        cases = [(subject, way) for subject, way in own if loader.takes(subject)]
        if loader.home == "node" and shutil.which("npm") is None:
            yield from ((*case, name, "no Node here") for case in cases)
            continue
        questions = [(str(one.folder), str(one.folder / one.file), batches[way]) for one, way in cases]
        for case, theirs in zip(cases, answers(loader, questions, cache), strict=True):
            yield *case, name, theirs if isinstance(theirs, str) else cosines(own[case], theirs)


def shown(said: Said) -> str:
    """In one line."""
    return said.split("\n")[0] if isinstance(said, str) else f"{said[0]:.6f}  {said[1]:.6f}"


def is_alike(subject: Subject, name: str, said: Said) -> bool:
    """Whether short texts have bertshrink's vectors, as far as the loader's engine rounds as ONNX Runtime does."""
    if subject.is_rounded and not LOADERS[name].rounds_alike:
        return not isinstance(said, str)
    return not isinstance(said, str) and said[0] > 0.9999


def main() -> None:
    """Load, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--cache", type=Path, default=Path(".cache/loaders"))
    parser.add_argument("--only", nargs="+", choices=LOADERS, default=list(LOADERS))
    asked = parser.parse_args()
    table, are_alike = {}, True
    subjects = [subject_of(folder.resolve()) for folder in asked.folders]
    for subject, way, name, said in compare(subjects, asked.only, TEXTS, asked.cache.resolve()):
        table[f"{subject.folder.name} {way} {name}"] = said
        are_alike = are_alike and is_alike(subject, name, said)
        print(f"{subject.folder.name:20} {way:12} {name:22} {shown(said)}", flush=True)
    print(json.dumps(table))
    sys.exit(not are_alike)


if __name__ == "__main__":
    main()
