"""How the defaults of `distill` were chosen: one teacher, one dataset, several settings, the same dev texts.

    python benchmarks/distill_defaults.py MODEL DATA --layers 3 [--max-train N] [--max-length L] \\
        '{"epochs": 1}' '{"epochs": 1, "dropout": false}' ...

Each settings object is a `distill` stage as JSON. One line per setting: the student's figures before and after
training, the seconds, the non-pad tokens per second. The last line is one JSON document. Texts are judged on the dev
side only, which is what choosing is for.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

from bertshrink.data.load import load
from bertshrink.data.settings import DataSettings
from bertshrink.meters.environment import environment
from bertshrink.meters.quality.evaluators import prepare
from bertshrink.model.model_ref import ModelRef
from bertshrink.sources.resolve import locate_model
from bertshrink.techniques.base import Workbench
from bertshrink.techniques.distill import Distill
from bertshrink.techniques.distill.student import reduce_layers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("settings", nargs="+", type=json.loads)
    parser.add_argument("--layers", type=int, required=True)
    parser.add_argument("--max-train", type=int)
    parser.add_argument("--max-length", type=int)
    args = parser.parse_args()

    teacher = ModelRef.read(locate_model(args.model)).load()
    texts = load(DataSettings(path=args.data, max_train=args.max_train, max_length=args.max_length))
    exam = prepare(teacher, texts, args.max_length, 0)

    def figures(model) -> dict[str, float]:
        return {m.metric: round(m.value, 4) for m in exam.sit(model)}

    results = {"machine": environment().model_dump(mode="json"), "teacher": figures(teacher), "runs": []}
    print("teacher", results["teacher"], flush=True)
    for own in args.settings:
        settings = Distill(layers=args.layers, **own)
        before = figures(reduce_layers(teacher, settings.chosen(teacher.shape.num_layers)))
        with tempfile.TemporaryDirectory() as folder:
            bench = Workbench(texts, teacher, Path(folder), max_length=args.max_length)
            began = time.monotonic()
            student = settings(teacher.copy(), bench)
            seconds = time.monotonic() - began
        num_tokens = sum(len(row["input_ids"]) for row in teacher.tokenize(texts.train.texts, None, args.max_length))
        rate = num_tokens * bench.history[-1]["epoch"] / seconds
        found = {"settings": own, "before": before, "after": figures(student), "seconds": round(seconds, 1)}
        found |= {"tokens_per_s": round(rate), "loss": bench.history[-1]["loss"]}
        results["runs"].append(found)
        print(json.dumps(found), flush=True)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
