"""A family's file of ours beside PyTorch and what other exporters write, at the sizes of a published model.

    python benchmarks/family_latency.py --shape deberta-v3-base --work DIR [--shapes 1x128,8x128] [--rounds N]

The model has the sizes of the published one and random weights: they take the time and the bytes of trained ones.
Made in DIR, once, with the seconds that each took:

    model            the stock checkpoint, a classifier of three labels
    ours             `bertshrink export`                     int8     `bertshrink quantize` of it
    torchscript      `torch.onnx.export(dynamo=False)`       dynamo   `torch.onnx.export(dynamo=True)`
    transformers     `transformers.exporters.OnnxExporter`   transformers-int8   its OnnxRuntimeQuantizer, dynamic

Then `bertshrink bench` times all that were made in one interleaved run in fresh processes, into DIR/bench.json.
An exporter that fails is told with its error, and the others go on. Cosines with PyTorch's logits on three texts say
which files compute the model at all. The last line is one JSON document.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SHAPES: dict[str, dict[str, Any]] = {
    "deberta-v3-base": {
        "model_type": "deberta-v2",
        "vocab_size": 128100,
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
        "max_relative_positions": -1,
        "pooler_hidden_size": 768,
        "relative_attention": True,
        "position_buckets": 256,
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
        "pos_att_type": ["p2c", "c2p"],
        "position_biased_input": False,
        "type_vocab_size": 0,
        "max_position_embeddings": 512,
        "layer_norm_eps": 1e-7,
    },
    "modernbert-base": {"model_type": "modernbert"},
    "mpnet-base": {"model_type": "mpnet", "vocab_size": 30527, "max_position_embeddings": 514},
}
"""Name -> what the published config.json says besides its class's defaults."""

TEXTS = ["A surprisingly good film.", "Prices rose by 3.5 % in 2019; wages did not.", "Nobody asks in winter. " * 20]


def make_model(folder: Path, name: str) -> None:
    """Save a classifier of the sizes with random weights, and a tokenizer as large as its table."""
    import torch
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    settings = dict(SHAPES[name])
    kind = settings.pop("model_type")
    special = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"]
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}
    config = transformers.AutoConfig.for_model(kind, num_labels=3, **(settings | ids))
    torch.manual_seed(0)
    transformers.AutoModelForSequenceClassification.from_config(config).eval().save_pretrained(folder)
    letters = [chr(code) for code in range(33, 127)]
    pieces = dict.fromkeys([*special, *letters, *(f"##{letter}" for letter in letters)])
    pieces |= dict.fromkeys(f"w{number}" for number in range(config.vocab_size - len(pieces)))
    tokenizer = Tokenizer(models.WordPiece({piece: at for at, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    names = {f"{role}_token": text for role, text in zip(("pad", "cls", "sep", "unk", "mask"), special, strict=True)}
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_input_names=["input_ids", "attention_mask"], model_max_length=512, **names
    ).save_pretrained(folder)


def command(*arguments: str | Path) -> str:
    """Run bertshrink; returns what it printed.

    Raises:
        subprocess.CalledProcessError: it failed; with what it said.
    """
    asked = [sys.executable, "-m", "bertshrink", *map(str, arguments)]
    return subprocess.run(asked, check=True, capture_output=True, text=True).stdout


def by_torch(model: Path, out: Path, *, dynamo: bool) -> None:
    """The plain export of PyTorch, dynamic in batch and length, its configuration and tokenizer beside it."""
    import torch
    import transformers

    loaded: Any = transformers.AutoModelForSequenceClassification.from_pretrained(model, return_dict=False).eval()
    ids = torch.ones(2, 16, dtype=torch.int64)
    names = ["input_ids", "attention_mask"]
    axes: dict[str, Any]
    if dynamo:
        batch, length = torch.export.Dim("batch", min=1, max=64), torch.export.Dim("length", min=2, max=512)
        axes = {"dynamic_shapes": {name: {0: batch, 1: length} for name in names}}
    else:
        axes = {"dynamic_axes": {name: {0: "batch", 1: "length"} for name in names} | {"logits": {0: "batch"}}}
    out.mkdir(parents=True)
    kwargs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    torch.onnx.export(
        loaded,
        (),
        str(out / "model.onnx"),
        kwargs=kwargs,
        dynamo=dynamo,
        input_names=names,
        output_names=["logits"],
        external_data=False,
        **axes,
    )
    papers(model, out)


def by_transformers(model: Path, out: Path, *, int8: bool, auto: str = "AutoModelForSequenceClassification") -> None:
    """The export of transformers, and its dynamic quantization; `auto` names the class that loads the model."""
    import torch
    import transformers
    from transformers.exporters import OnnxConfig, OnnxExporter

    loaded = getattr(transformers, auto).from_pretrained(model).eval()
    ids = torch.ones(2, 16, dtype=torch.int64)
    feeds = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    quantizer: dict[str, Any] = {}
    if int8:
        from transformers.exporters.quantizers import OnnxRuntimeDynamicConfig, OnnxRuntimeQuantizer

        quantizer = {"quantizer": OnnxRuntimeQuantizer(OnnxRuntimeDynamicConfig())}
    exported = OnnxExporter().export(loaded, feeds, OnnxConfig(dynamic=True, **quantizer))
    exported.save_pretrained(str(out))
    papers(model, out)


def papers(model: Path, out: Path) -> None:
    """Put what is beside the weights beside a file."""
    for path in model.glob("*.json"):
        if not (out / path.name).exists():
            (out / path.name).write_bytes(path.read_bytes())
    for folder in model.glob("[0-9]*_*"):
        shutil.copytree(folder, out / folder.name, dirs_exist_ok=True)


def cosine(model: Path, folder: Path) -> float:
    """The smallest cosine of the logits of a folder's file with PyTorch's."""
    import numpy as np
    import onnxruntime
    import torch
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    batch = tokenizer(TEXTS, padding=True, return_tensors="pt")
    loaded = transformers.AutoModelForSequenceClassification.from_pretrained(model).eval()
    with torch.no_grad():
        wanted = loaded(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits.numpy()
    file = next(folder.rglob("*.onnx"))
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    feeds = {value.name: batch[value.name].numpy() for value in session.get_inputs() if value.name in batch}
    (logits, *_) = session.run(None, feeds)
    each = (logits * wanted).sum(-1) / np.linalg.norm(logits, axis=-1) / np.linalg.norm(wanted, axis=-1)
    return float(each.min())


def main() -> None:
    """Make what is missing, compare, time, and tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=sorted(SHAPES), required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--shapes", default="1x128,8x128")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--only", nargs="*", help="of the files, besides the model")
    given = parser.parse_args()
    work: Path = given.work
    model = work / "model"
    makers: dict[str, Callable[[Path], None]] = {
        "ours": lambda out: print(command("export", model, "-o", out, "-q"), end=""),
        "int8": lambda out: print(command("quantize", work / "ours", "-o", out, "-q", "--min-cosine", "-1"), end=""),
        "torchscript": lambda out: by_torch(model, out, dynamo=False),
        "dynamo": lambda out: by_torch(model, out, dynamo=True),
        "transformers": lambda out: by_transformers(model, out, int8=False),
        "transformers-int8": lambda out: by_transformers(model, out, int8=True),
    }
    if not model.exists():
        make_model(model, given.shape)
    told: dict[str, Any] = {}
    for name, make in makers.items():
        if given.only is not None and name not in given.only:
            continue
        out, began = work / name, time.monotonic()
        try:
            if not out.exists():
                make(out)
            num_bytes = sum(path.stat().st_size for path in out.rglob("*") if ".onnx" in path.name)
            told[name] = {"seconds": time.monotonic() - began, "bytes": num_bytes, "cosine": cosine(model, out)}
        except Exception as error:  # another exporter may raise anything
            told[name] = {"error": str(getattr(error, "stderr", None) or error).strip()[-400:]}
        print(name, json.dumps(told[name]), flush=True)
    made = [model, *(work / name for name, about in told.items() if "error" not in about)]
    pairs = [shape.split("x") for shape in given.shapes.split(",")]
    batches, lengths = (list(dict.fromkeys(pair[at] for pair in pairs)) for at in (0, 1))
    done = command(
        *("bench", *made, "--batch", ",".join(batches), "--length", ",".join(lengths)),
        *("--rounds", str(given.rounds), "--json"),
    )
    (work / "bench.json").write_text(done, encoding="utf-8")
    print(json.dumps({"shape": given.shape, "files": told, "bench": str(work / "bench.json")}))


if __name__ == "__main__":
    main()
