"""Folders of models: weights, small files, seals. Judged by stock transformers and sentence-transformers."""

import json
import random
import shutil
import struct
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from bertshrink.errors import UnsafeModel
from tests.torture.core import Kind, Probe, forked
from tests.torture.mutations import spoil, spoil_bytes, spoil_json

TEXTS = ("a good film", "no", "it was not the best movie of the year, but we love it")
CODES = (2, 5)


@cache
def home() -> Path:
    """Where the unspoilt things are; made once, in forked processes, so that this one stays without threads."""
    import atexit
    import tempfile

    folder = Path(tempfile.mkdtemp(prefix="torture-home-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    how, said = forked(lambda: _make(folder), 600)
    if how != "value":
        raise RuntimeError(f"the unspoilt models cannot be made: {how} {said}")
    return folder


def _make(folder: Path) -> None:
    from bertshrink.cli.app import run
    from tests.support.tiny import tiny_encoder

    tiny_encoder("bert", "classification").save(folder / "classifier")
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Normalize, Pooling, Transformer

    tiny_encoder("bert", "embedding").save(folder / "plain")
    (folder / "plain" / "modules.json").unlink(missing_ok=True)
    body = Transformer(str(folder / "plain"))
    parts = [body, Pooling(body.get_word_embedding_dimension(), "mean"), Normalize()]
    SentenceTransformer(modules=parts, device="cpu").save_pretrained(str(folder / "sentences"))
    for to in ("onnx", "ort"):
        words = ["export", str(folder / "classifier"), "-o", str(folder / to), "--runs", str(folder / "runs"), "-q"]
        if code := run([*words, "--to", to]):
            raise RuntimeError(f"export --to {to}: exit code {code}")


def answers(folder: Path) -> dict[str, Any]:
    """What bertshrink's model answers."""
    from bertshrink.model.encoder import Encoder

    encoder = Encoder.load(folder)
    found = encoder.predict(encoder.tokenize(TEXTS))
    return {"numbers": [np.asarray(next(iter(out.values()))) for out in found], "labels": list(encoder.labels)}


def stock(folder: Path) -> dict[str, Any]:
    """What the format's own libraries answer."""
    import torch

    if (folder / "modules.json").exists():
        import sentence_transformers as st

        model = st.SentenceTransformer(str(folder), device="cpu", local_files_only=True)
        return {"numbers": [model.encode(text) for text in TEXTS], "labels": []}
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(str(folder), local_files_only=True).eval()
    with torch.no_grad():
        numbers = [
            model(**tokenizer(text, return_tensors="pt", truncation=True), return_dict=True)["logits"][0].numpy()
            for text in TEXTS
        ]
    return {"numbers": numbers, "labels": [model.config.id2label[i] for i in range(model.config.num_labels)]}


def alike(one: dict[str, Any], other: dict[str, Any], atol: float = 1e-4) -> bool:
    """Whether two sets of answers are the same."""
    pairs = list(zip(one["numbers"], other["numbers"], strict=True))
    return one["labels"] == other["labels"] and all(
        a.shape == b.shape and np.allclose(a, b, atol=atol, equal_nan=True) for a, b in pairs
    )


def judged_by(folder: Path, base: Path) -> Any:
    """Whether answers are the stock library's for the spoilt folder, or where that fails, for the unspoilt one."""

    def judge(found: dict[str, Any]) -> bool:
        how, theirs = forked(lambda: stock(folder), 40)
        return (how == "value" and alike(found, theirs)) or alike(found, stock(base))

    return judge


def papers(rng: random.Random, folder: Path) -> Probe:
    """A small file of a model folder is spoilt."""
    base = home() / rng.choice(("classifier", "sentences"))
    place = folder / "m"
    shutil.copytree(base, place)
    names = [p for p in place.rglob("*") if p.suffix in (".json", ".txt") and p.name != "README.md"]
    what = spoil(rng, rng.choice(sorted(names)))
    return Probe(f"{base.name}/{what}", lambda: answers(place), judged_by(place, base), CODES)


def headers(rng: random.Random, folder: Path) -> Probe:
    """The header of the weights, or any of their bytes, is spoilt."""
    base = home() / "classifier"
    place = folder / "m"
    shutil.copytree(base, place)
    path = place / "model.safetensors"
    data = path.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    deed = rng.random()
    if deed < 0.6:
        header = json.loads(data[8 : 8 + length])
        names = rng.sample(sorted(header), 6)
        text, what = spoil_json(rng, {name: header[name] for name in names if name in header})
        rest = {name: entry for name, entry in header.items() if name not in names}
        joined = text.rstrip()[:-1].rstrip() + b"," + json.dumps(rest).encode()[1:] if len(text) > 3 else text
        path.write_bytes(struct.pack("<Q", len(joined)) + joined + data[8 + length :])
    elif deed < 0.8:
        spoilt, what = spoil_bytes(rng, data[: 8 + length])
        path.write_bytes(spoilt + data[8 + length :])
    elif deed < 0.97:
        spoilt, what = spoil_bytes(rng, data)
        path.write_bytes(spoilt)
    else:
        path.write_bytes(struct.pack("<Q", 2) + b"{}")
        what = "an empty header"
    return Probe(f"weights: {what}", lambda: answers(place), judged_by(place, base), CODES)


def seals(rng: random.Random, folder: Path) -> Probe:
    """A file of a sealed folder is spoilt: everyone who reads must refuse it."""
    base = home() / "onnx"
    place = folder / "m"
    shutil.copytree(base, place)
    before = listing(place)
    files = sorted(p for p in place.rglob("*") if p.is_file() and p.name not in ("README.md", "report.json"))
    path = rng.choice(files)
    if rng.random() < 0.1:
        name = rng.choice(("added_tokens.json", "adapter_config.json", "extra.onnx", "vocab.txt"))
        (place / name).write_text("{}")
        what = f"{name} added"
    else:
        what = spoil(rng, path)

    def act() -> list[str]:
        accepted = []
        for name, read in READERS.items():
            try:
                read(place)
            except UnsafeModel as error:
                last = error
            else:
                accepted.append(name)
        if not accepted:
            raise last
        return accepted

    return Probe(what, act, lambda found: listing(place) == before and len(found) == len(READERS), (5,))


def listing(folder: Path) -> dict[str, str | bytes]:
    """What is in a folder."""
    return {
        str(p.relative_to(folder)): p.read_bytes() if p.is_file() and not p.is_symlink() else "no file"
        for p in folder.rglob("*")
        if not p.is_dir()
    }


def _inspect(folder: Path) -> None:
    from bertshrink.cli.inspect import inspect_model

    inspect_model(str(folder), "auto", True)


def _gate(folder: Path) -> None:
    from bertshrink.gates.figures.file_metrics import look_at

    look_at(folder, "here")


def _load(folder: Path) -> None:
    from bertshrink.model.artifact import Artifact
    from bertshrink.sources import resolve

    Artifact.load(resolve.locate_config(str(folder)))


READERS = {"gate": _gate, "inspect": _inspect, "load": _load}
KINDS = (
    Kind("safetensors", headers, 1200, 120),
    Kind("papers", papers, 1300, 160),
    Kind("seals", seals, 800, 80),
)
