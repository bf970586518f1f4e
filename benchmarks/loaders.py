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

Environments are made once, below `--cache`, by pip and npm (npm without install scripts: what they would fetch is for
GPUs). Each loader runs in a process of its own, offline, and gives vectors or logits of the same texts: short ones, one
of many scripts, an empty one, one of more tokens than the model takes, which every loader cuts by what the folder's
files say. They are compared with bertshrink's own, text by text; shown are the least cosine of the texts that
fit and that of the long one.

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
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

TEXTS = [
    "A surprisingly good film.",
    "Prices rose by 3.5 % in 2019; wages did not, and nobody in the square was glad of it!",
    "Ein Fünftel der Züge fährt über Köln. 東京は大きい。 Ça va?",
    "",
    " ".join(f"Sentence {at} says that the ferry runs on Tuesdays only." for at in range(120)),
]

_PLAIN = """
import json, sys
import numpy as np
{imports}
folder, file, texts, batches = json.loads(sys.argv[1])
about = json.load(open(folder + "/artifact.json"))
name = "sentence_embedding" if about["task"] == "embedding" else "logits"
found = []
{begin}
for texts in batches:
    ids, mask, types = {tokens}
    given = dict(input_ids=ids, attention_mask=mask, token_type_ids=types)
    found += {run}.tolist()
json.dump(found, open(sys.argv[2], "w"))
"""
_TOKENIZERS = (
    "(np.array([getattr(e, k) for e in tokenizer.encode_batch(texts)]) for k in ('ids', 'attention_mask', 'type_ids'))"
)
_FROM_FILE = "tokenizer = tokenizers.Tokenizer.from_file(folder + '/tokenizer.json')\n"
_ORT = "session = onnxruntime.InferenceSession(file)\nknown = [i.name for i in session.get_inputs()]\n"
_RUN_ORT = "session.run([name], {key: given[key] for key in known})[0]"

TOKENIZERS = _PLAIN.format(
    imports="import onnxruntime, tokenizers", begin=_FROM_FILE + _ORT, tokens=_TOKENIZERS, run=_RUN_ORT
)
OPENVINO = _PLAIN.format(
    imports="import openvino, tokenizers",
    begin=_FROM_FILE + "model = openvino.Core().compile_model(file, 'CPU', {'INFERENCE_PRECISION_HINT': 'f32'})\n"
    "known = [i.get_any_name() for i in model.inputs]\n",
    tokens=_TOKENIZERS,
    run="model({key: given[key] for key in known})[name]",
)
TRANSFORMERS = _PLAIN.format(
    imports="import onnxruntime, transformers",
    begin="tokenizer = transformers.AutoTokenizer.from_pretrained(folder)\n" + _ORT,
    tokens="map(np.array, (lambda t: (t['input_ids'], t['attention_mask'], t.get('token_type_ids')))("
    "tokenizer(texts, padding=True, truncation=True)))",
    run=_RUN_ORT,
)
SENTENCES = """
import json, sys
from sentence_transformers import SentenceTransformer
folder, file, texts, batches = json.loads(sys.argv[1])
more = {more}
model = SentenceTransformer(folder, device="cpu", **more)
found = [vector for texts in batches for vector in model.encode(texts, batch_size=len(texts)).tolist()]
json.dump(found, open(sys.argv[2], "w"))
"""
OPTIMUM = """
import json, sys
import optimum.onnxruntime, torch, transformers
folder, file, texts, batches = json.loads(sys.argv[1])
task = json.load(open(folder + "/artifact.json"))["task"]
kind = {"embedding": "FeatureExtraction", "token-classification": "TokenClassification",
    "question-answering": "QuestionAnswering", "mlm": "MaskedLM"}.get(task, "SequenceClassification")
model = getattr(optimum.onnxruntime, "ORTModelFor" + kind).from_pretrained(folder)
tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
found = []
for texts in batches:
    given = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
    out = model(**given)
    if task != "embedding":
        found += out.logits.tolist()
        continue
    mask = given["attention_mask"].unsqueeze(-1).float()
    mean = (out.last_hidden_state * mask).sum(1) / mask.sum(1)
    found += torch.nn.functional.normalize(mean, dim=-1).tolist()
json.dump(found, open(sys.argv[2], "w"))
"""
CHECKPOINT = """
import json, sys
import torch, transformers
folder, file, texts, batches = json.loads(sys.argv[1])
model = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
with torch.inference_mode():
    found = [row for texts in batches for row in model(**tokenizer(texts, padding=True, truncation=True,
        return_tensors="pt")).logits.tolist()]
json.dump(found, open(sys.argv[2], "w"))
"""
FASTEMBED = """
import json, sys
from fastembed import TextEmbedding
from fastembed.common.model_description import ModelSource, PoolingType
folder, file, texts, batches = json.loads(sys.argv[1])
about = json.load(open(folder + "/artifact.json"))
width = json.load(open(folder + "/config.json"))["hidden_size"]
TextEmbedding.add_custom_model("own", pooling=PoolingType.MEAN, normalization=about["pooling"][1], dim=width,
    sources=ModelSource(url="local"), model_file=about["file"])
model = TextEmbedding("own", specific_model_path=folder)
found = [vector.tolist() for texts in batches for vector in model.embed(texts, batch_size=len(texts))]
json.dump(found, open(sys.argv[2], "w"))
"""
JAVASCRIPT = """
import { env, pipeline, AutoModelForSequenceClassification, AutoTokenizer } from "@huggingface/transformers";
import { readFileSync, writeFileSync } from "node:fs";
import { basename, dirname } from "node:path";
const [folder, file, texts, batches] = JSON.parse(process.argv[2]);
const { task, pooling } = JSON.parse(readFileSync(folder + "/artifact.json"));
env.allowRemoteModels = false;
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
writeFileSync(process.argv[3], JSON.stringify(found));
"""


@dataclass(frozen=True)
class Loader:
    """One library's way to a model.

    Attributes:
        code: what is run, with the question as JSON and the place of the answers.
        home: the environment: `here`, or one below the cache.
        takes: whether it is for a folder: (task, whether it is an artifact).
        rounds_alike: whether it runs an int8 file with ONNX Runtime's numbers.
    """

    code: str
    home: str
    takes: Callable[[str, bool], bool]
    rounds_alike: bool = True


def _artifact(task: str, is_artifact: bool) -> bool:
    return is_artifact


def _sentence_artifact(task: str, is_artifact: bool) -> bool:
    return is_artifact and task == "embedding"


def _sentence_checkpoint(task: str, is_artifact: bool) -> bool:
    return not is_artifact and task == "embedding"


def _classifier_checkpoint(task: str, is_artifact: bool) -> bool:
    return not is_artifact and task != "embedding"


LOADERS = {
    "tokenizers": Loader(TOKENIZERS, "fastembed", _artifact),
    "transformers": Loader(TRANSFORMERS, "here", _artifact),
    "openvino": Loader(OPENVINO, "here", _artifact, rounds_alike=False),
    "sentence-transformers": Loader(SENTENCES.format(more="{}"), "here", _sentence_checkpoint),
    "st-4": Loader(SENTENCES.format(more="{}"), "optimum", _sentence_checkpoint),
    "transformers-4": Loader(CHECKPOINT, "optimum", _classifier_checkpoint),
    "st-onnx": Loader(
        SENTENCES.format(
            more="dict(backend='onnx', model_kwargs=dict("
            "file_name=file.rpartition('/')[2], provider='CPUExecutionProvider'))"
        ),
        "optimum",
        _sentence_artifact,
    ),
    "optimum": Loader(OPTIMUM, "optimum", _artifact),
    "fastembed": Loader(FASTEMBED, "fastembed", _sentence_artifact),
    "transformers.js": Loader(JAVASCRIPT, "node", _artifact),
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


def answers(loader: Loader, folder: Path, file: str, batches: list[list[str]], cache: Path) -> list[list[float]]:
    """What a loader makes of the texts.

    Raises:
        RuntimeError: it fails; the last line that it said.
    """
    command, place = python_of(loader.home, cache), cache / loader.home
    place.mkdir(parents=True, exist_ok=True)
    code, out = place / ("asked.mjs" if loader.home == "node" else "asked.py"), place / "answers.json"
    code.write_text(loader.code, encoding="utf-8")
    out.unlink(missing_ok=True)
    question = json.dumps([str(folder), str(folder / file), [], batches])
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    done = subprocess.run(
        [*command, str(code), question, str(out)], env=os.environ | offline, capture_output=True, text=True, check=False
    )
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["no word"]
        raise RuntimeError(next((line for line in lines if "Error" in line), lines[-1]))
    return list(json.loads(out.read_text()))


def own_answers(folder: Path, batches: list[list[str]]) -> tuple[list[list[float]], str, str, bool]:
    """bertshrink's own vectors or logits, the file, the task, and whether it is an artifact that rounds activations."""
    from bertshrink.model.artifact import Artifact
    from bertshrink.model.batches import pad
    from bertshrink.model.model_ref import ModelRef

    model = ModelRef.read(folder).load()
    session, found = model.session(), []
    name = "sentence_embedding" if model.task == "embedding" else "logits"
    for texts in batches:
        feeds = pad(model.tokenize(texts), model.tokenizer.pad_token_id)
        found += session.run(feeds)[name].tolist()
    file = model.card.file if isinstance(model, Artifact) else "model.safetensors"
    return found, file, model.task, "int" in getattr(getattr(model, "card", None), "precision", "")


def cosines(mine: list[list[float]], theirs: list[list[float]]) -> tuple[float, float]:
    """The least cosine of the vectors of texts that fit, and that of the long text."""
    a, b = np.array(mine, dtype=np.float64), np.array(theirs, dtype=np.float64)
    if a.shape != b.shape:
        raise RuntimeError(f"shapes differ: {a.shape} and {b.shape}")
    found = np.sum(a * b, -1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)
    return float(found[:-1].min()), float(found[-1])


def main() -> None:
    """Load, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--cache", type=Path, default=Path(".cache/loaders"))
    parser.add_argument("--only", nargs="+", choices=LOADERS, default=list(LOADERS))
    asked = parser.parse_args()
    cache, table = asked.cache.resolve(), {}
    for folder in (path.resolve() for path in asked.folders):
        _, file, task, is_rounded = own_answers(folder, [])
        ways = {"one by one": [[text] for text in TEXTS]} | ({} if is_rounded else {"one batch": [TEXTS]})
        for way, batches in ways.items():
            own = own_answers(folder, batches)[0]
            for name in asked.only:
                loader = LOADERS[name]
                is_artifact = (folder / "artifact.json").is_file()
                if not loader.takes(task, is_artifact) or (is_rounded and not loader.rounds_alike):
                    continue
                if loader.home == "node" and shutil.which("npm") is None:
                    said: tuple[float, float] | str = "no Node here"
                else:
                    try:
                        said = cosines(own, answers(loader, folder, file, batches, cache))
                    except RuntimeError as error:
                        said = str(error)
                table[f"{folder.name} {way} {name}"] = said
                shown = said if isinstance(said, str) else f"{said[0]:.6f}  {said[1]:.6f}"
                print(f"{folder.name:20} {way:12} {name:22} {shown}", flush=True)
    print(json.dumps(table))
    sys.exit(any(isinstance(said, str) or not said[0] > 0.9999 for said in table.values()))


if __name__ == "__main__":
    main()
