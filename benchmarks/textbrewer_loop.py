"""One contender of `distill_throughput.py`: TextBrewer 0.2.1 as its README shows it. Runs in an environment of its own.

    python textbrewer_loop.py TEACHER ROWS.json LAYERS STEPS WARMUP BATCH OUT

ROWS.json holds tokenized rows and labels, so that every contender reads the same; OUT receives the student. The last
line is one JSON document: non-pad tokens and seconds of the steps after the warm-up.
"""

import json
import math
import random
import sys
import time
from pathlib import Path

import torch
from textbrewer import DistillationConfig, GeneralDistiller, TrainingConfig
from torch.utils.data import DataLoader
from transformers import AutoModelForSequenceClassification, get_linear_schedule_with_warmup

WARMUP = 0.06
"""Share of the steps in which the learning rate rises, as in the other contenders."""


def main() -> None:
    """Distill and tell the time."""
    teacher_folder, rows_file, layers, steps, warmup, size, out = sys.argv[1:8]
    torch.set_num_threads(2)
    rows = json.loads(Path(rows_file).read_text(encoding="utf-8"))
    random.Random(0).shuffle(rows)
    kept = [int(layer) for layer in layers.split(",")]
    total = int(steps) + int(warmup)
    teacher = AutoModelForSequenceClassification.from_pretrained(teacher_folder).eval()
    student = AutoModelForSequenceClassification.from_pretrained(teacher_folder)
    student.bert.encoder.layer = torch.nn.ModuleList([student.bert.encoder.layer[i - 1] for i in kept])
    student.config.num_hidden_layers = len(kept)
    tokens: list[int] = []
    clock: list[float] = []

    def collate(batch):
        longest = max(len(row["input_ids"]) for row, _ in batch)
        arrays = {
            name: torch.tensor([row[name] + [0] * (longest - len(row[name])) for row, _ in batch])
            for name in batch[0][0]
        }
        tokens.append(int(arrays["attention_mask"].sum()))
        clock.append(time.perf_counter())
        return arrays | {"labels": torch.tensor([label for _, label in batch])}

    def adaptor(batch, outputs):
        return {
            "logits": outputs.logits,
            "hidden": outputs.hidden_states,
            "losses": outputs.loss,
            "inputs_mask": batch["attention_mask"],
        }

    depth = teacher.config.num_hidden_layers
    pairs = [
        {"layer_T": t, "layer_S": s, "feature": "hidden", "loss": "cos", "weight": 1 / len(kept)}
        for s, t in enumerate((*kept[:-1], depth), start=1)
    ]
    # Its soft loss is a cross-entropy without T^2: with T^2 in the weight it has the gradients of the others' KL.
    config = DistillationConfig(temperature=2, hard_label_weight=0.5, kd_loss_weight=4, intermediate_matches=pairs)
    for model in (teacher, student):
        model.config.output_hidden_states = True
    loader = DataLoader(rows[: total * int(size)], batch_size=int(size), shuffle=False, collate_fn=collate)
    distiller = GeneralDistiller(
        TrainingConfig(device="cpu", ckpt_frequency=0, output_dir=out + "-log", log_dir=None),
        config,
        teacher,
        student,
        adaptor,
        adaptor,
    )
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-4, weight_decay=0.01)
    with distiller:
        distiller.train(
            optimizer,
            loader,
            num_epochs=1,
            scheduler_class=get_linear_schedule_with_warmup,
            scheduler_args={"num_warmup_steps": math.ceil(WARMUP * len(loader)), "num_training_steps": len(loader)},
            max_grad_norm=1.0,
        )
    end = time.perf_counter()
    student.save_pretrained(out)
    first = int(warmup)
    print(json.dumps({"tokens": sum(tokens[first:]), "seconds": end - clock[first], "steps": len(tokens) - first}))


if __name__ == "__main__":
    main()
