"""Which library loads which family's files, measured: the table of docs/families.md.

    python benchmarks/family_loaders.py --work DIR [--task TASK] [--cache .cache/loaders] [--family NAME ...]
                                        [--only LOADER ...]

Of every family a sentence encoder (or, by `--task`, a classifier) of four layers, 32 wide, with random weights and a
tokenizer of the kind that its published models have. Made of it in DIR/TASK, once, by the functions of the commands:

    FAMILY-checkpoint   the stock folder, of a sentence encoder with mean pooling
    FAMILY-onnx         `export`                     FAMILY-int8   `quantize` of it
    FAMILY-ort          `export --to ort`

Each loader of `loaders.py` is asked for the vectors or logits of the same texts, one by one and, of float files, as a
batch. A cell of the table is the least cosine with bertshrink's own of the same folder: of short texts, an empty one,
one of many scripts; the last row is of a text too long for the model, the least of all families. A loader that fails
is told in its own words below the table. The last line is one JSON document. It takes five minutes on two cores,
besides the environments.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from loaders import LOADERS, TEXTS, Said, compare, shown, subject_of

sys.path.append(str(Path(__file__).parents[1]))  # tests.support builds the tiny models

KINDS = {
    "bytes": ("roberta", "modernbert", "eurobert"),
    "unigram": (
        *("xlm-roberta", "albert", "camembert", "deberta-v2", "gte", "jina_embeddings_v3"),
        *("xlm-roberta-xl", "rembert"),
    ),
}
"""Kind of tokenizer -> families whose published models come with it; the others have WordPiece."""
COLUMNS = {
    "sentence-transformers": "checkpoint: sentence-transformers",
    "st-4": "checkpoint: sentence-transformers, transformers 4",
    "transformers-4": "checkpoint: transformers 4",
    "tokenizers": "ONNX: ONNX Runtime, `tokenizers`",
    "transformers": "ONNX: ONNX Runtime, transformers' tokenizer",
    "openvino": "ONNX: OpenVINO",
    "st-onnx": "ONNX: sentence-transformers, transformers 4",
    "optimum": "ONNX: optimum, transformers 4",
    "fastembed": "ONNX: fastembed",
    "transformers.js": "ONNX: transformers.js",
    "ort": "`.ort`: ONNX Runtime, `tokenizers`",
}
"""Loader -> what stands over its column; loaders of ONNX files are asked for float and int8."""
MAX_LENGTH = 256
"""Tokens. The tokenizers cut most words into letters: all texts but the last one have less."""

Table = dict[tuple[str, str, str], list[Said]]
"""(family, form of file, loader) -> what was said of each way in which texts were given."""


def tokenizer_kind(family: str) -> str:
    """The kind, as `tests.support.tokenizers_that_cut` names it."""
    return next((kind for kind, families in KINDS.items() if family in families), "wordpiece")


def make_checkpoint(family: str, task: str, folder: Path) -> None:
    """Save the tiny model."""
    import copy

    from bertshrink.model.families import FAMILIES
    from tests.support.tiny import tiny_encoder
    from tests.support.tokenizers_that_cut import tokenizer_of

    tokenizer = copy.deepcopy(tokenizer_of(tokenizer_kind(family)))
    tokenizer.model_max_length = MAX_LENGTH
    has_types = FAMILIES[family].gives_token_types
    tokenizer.model_input_names = ["input_ids", *(["token_type_ids"] if has_types else []), "attention_mask"]
    ids: dict[str, Any] = {f"{role}_token_id": getattr(tokenizer, f"{role}_token_id") for role in ("pad", "cls", "sep")}
    ids |= {"bos_token_id": tokenizer.cls_token_id, "eos_token_id": tokenizer.sep_token_id}
    positions = MAX_LENGTH + FAMILIES[family].first_position(tokenizer.pad_token_id)
    encoder = tiny_encoder(family, task, vocab_size=len(tokenizer), max_position_embeddings=positions, **ids)
    encoder.tokenizer, encoder.max_length = tokenizer, MAX_LENGTH
    folder.mkdir(parents=True)
    encoder.save(folder)


def make(family: str, task: str, work: Path) -> list[Path]:
    """The four folders of a family, made where they are missing."""
    import bertshrink

    checkpoint, onnx, int8, ort = (work / task / f"{family}-{form}" for form in ("checkpoint", "onnx", "int8", "ort"))
    said: dict[str, Any] = {"runs": work / "runs", "progress": False}
    if not checkpoint.exists():
        make_checkpoint(family, task, checkpoint)
    if not onnx.exists():
        bertshrink.export(checkpoint, output=onnx, **said)
    if not int8.exists():
        bertshrink.quantize(onnx, min_cosine=-1, output=int8, **said)  # random weights: no cosine to hold
    if not ort.exists():
        bertshrink.export(checkpoint, to="ort", output=ort, **said)
    return [checkpoint, onnx, int8, ort]


def cell(forms: dict[str, list[Said]], footnotes: list[str], family: str) -> str:
    """The least cosine of short texts, that of int8 behind it where it is another; or the number of a footnote.

    Args:
        forms: form of file -> what the loader says of each way.
        footnotes: what failing loaders said, without the family's name; longer afterwards where one says something new.
    """
    shown = {}
    for form, said in forms.items():
        failed = next((one for one in said if isinstance(one, str)), None)
        if failed is None:
            shown[form] = f"{min(one[0] for one in said if not isinstance(one, str)):.6f}"
            continue
        note = failed.replace(family, "FAMILY").split("\n")[0].split(". ")[0]
        if note not in footnotes:
            footnotes.append(note)
        shown[form] = f"no ({footnotes.index(note) + 1})"
    first, *others = dict.fromkeys(shown.values())
    return ", int8 ".join([first, *others])


def markdown(table: Table) -> str:
    """The table, a row for each family, a last one for the long text, and what failing loaders said below it."""
    names = [name for name in COLUMNS if any(key[2] == name for key in table)]
    rows = [["`model_type`", *(COLUMNS[name] for name in names)], ["---"] * (len(names) + 1)]
    footnotes: list[str] = []
    for family in dict.fromkeys(key[0] for key in table):
        said = {name: {key[1]: table[key] for key in table if key[::2] == (family, name)} for name in names}
        rows.append([f"`{family}`", *(cell(said[name], footnotes, family) for name in names)])
    long = {
        name: [one[1] for key, said in table.items() if key[2] == name for one in said if not isinstance(one, str)]
        for name in names
    }
    rows.append(["too long, all", *(f"{min(long[name]):.6f}" if long[name] else "" for name in names)])
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([*lines, *(f"\n({at}) {note}" for at, note in enumerate(footnotes, 1))])


def main() -> None:
    """Make the folders, ask the loaders, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--task", choices=["embedding", "classification"], default="embedding")
    parser.add_argument("--cache", type=Path, default=Path(".cache/loaders"))
    parser.add_argument("--family", nargs="+", help="default: all")
    parser.add_argument("--only", nargs="+", choices=LOADERS, default=list(LOADERS))
    asked = parser.parse_args()
    from bertshrink.model.families import FAMILIES

    families = asked.family or list(FAMILIES)
    folders = [folder for family in families for folder in make(family, asked.task, asked.work.resolve())]
    table: Table = {}
    subjects = [subject_of(one) for one in folders]
    for subject, way, name, said in compare(subjects, asked.only, TEXTS, asked.cache.resolve()):
        family, _, form = subject.folder.name.rpartition("-")
        table.setdefault((family, form, name), []).append(said)
        print(f"{subject.folder.name:28} {way:12} {name:22} {shown(said)}", file=sys.stderr, flush=True)
    print(markdown(table), end="\n\n")
    print(json.dumps([[*key, said] for key, said in table.items()]))


if __name__ == "__main__":
    main()
