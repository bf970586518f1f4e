"""How much of a GPU pre-training distillation uses: tokens per second and model FLOPs utilisation.

    python benchmarks/distill_mfu.py [--steps 20] [--max-tokens-per-batch 32768] [--peak TFLOPS]

A teacher of BERT base's shape (12 layers, 768 wide, 30,522 tokens; random weights serve for speed) teaches a student of
6 layers as DistilBERT was taught (soft targets over the vocabulary, masked tokens, cosine of the last state), in
bfloat16, with rows of 512 and of 128 tokens, with and without torch.compile. Model FLOPs of a token, at length L:

    layers (8 H^2 + 4 H I + 4 H L) + 2 (H^2 + H V)        forward, head included; multiply and add count as two
    student 3x that (forward and backward), teacher 1x

over the GPU's dense bfloat16 peak. The last line is one JSON document. Exit codes: 0; 6 on a machine without CUDA.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any

PEAK_TFLOPS = {
    "H100 PCIe": 756,
    "H100": 989,
    "H200": 989,
    "A100": 312,
    "L40S": 362,
    "L4": 121,
    "RTX 4090": 165,
    "T4": 65,
}
"""Dense bfloat16 (T4: float16) tensor peaks from the makers' data sheets; the first name that fits counts."""


def flops_per_token(config: Any, length: int) -> float:
    """Forward FLOPs of a token, masked-language head included."""
    width, inner = config.hidden_size, config.intermediate_size
    layers = config.num_hidden_layers * (8 * width**2 + 4 * width * inner + 4 * width * length)
    return layers + 2 * (width**2 + width * config.vocab_size)


def measure(length: int, max_tokens_per_batch: int, steps: int, *, compiled: bool) -> tuple[float, float]:
    """(tokens per second, FLOPs per second) of training steps."""
    import torch
    from transformers import BertConfig, BertForMaskedLM

    from bertshrink.techniques.distill.defaults import DEFAULTS
    from bertshrink.techniques.distill.objective import DistillationLoss, wanted
    from bertshrink.techniques.distill.teacher import run_model

    torch.manual_seed(0)
    config = BertConfig()
    small = BertConfig(num_hidden_layers=6)
    teacher = BertForMaskedLM(config).to("cuda", torch.bfloat16).eval().requires_grad_(False)
    student = BertForMaskedLM(small).to("cuda")
    weights, aligned = DEFAULTS["mlm"], [(6, 12)]
    of_teacher = wanted(weights, aligned)[1]
    run = torch.compile(teacher) if compiled else teacher

    def teach(inputs: Any, rows: Any) -> Any:
        with torch.no_grad():
            return run_model(run, inputs, of_teacher, "mlm", None)

    objective: Any = DistillationLoss(student, teach, "mlm", weights, aligned, (768, 768), (12, 12)).to("cuda")
    step_of = torch.compile(objective) if compiled else objective
    optimizer = torch.optim.AdamW(objective.parameters(), lr=5e-4, fused=True)
    rows = max(1, max_tokens_per_batch // length)
    ids = torch.randint(1000, config.vocab_size, (rows, length), device="cuda")
    labels = torch.where(torch.rand_like(ids, dtype=torch.float) < 0.15, ids, -100)
    mask = torch.ones_like(ids)

    def step() -> None:
        with torch.autocast("cuda", torch.bfloat16):
            loss, _ = step_of(input_ids=ids, attention_mask=mask, labels=labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    for _ in range(5):
        step()
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(steps):
        step()
    torch.cuda.synchronize()
    rate = rows * length * steps / (time.perf_counter() - began)
    return rate, rate * (3 * flops_per_token(small, length) + flops_per_token(config, length))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--max-tokens-per-batch", type=int, default=32768)
    parser.add_argument("--peak", type=float, help="TFLOPS of a GPU that is not in the table")
    args = parser.parse_args()
    import torch

    if not torch.cuda.is_available():
        print("no CUDA GPU is visible here: utilisation of one cannot be measured", file=sys.stderr)
        raise SystemExit(6)
    name = torch.cuda.get_device_name()
    peak = args.peak or next((value for key, value in PEAK_TFLOPS.items() if key in name), None)
    if peak is None:
        raise SystemExit(f"the peak of `{name}` is not in the table: give it with --peak TFLOPS")
    found = []
    for length in (512, 128):
        for compiled in (False, True):
            tokens, flops = measure(length, args.max_tokens_per_batch, args.steps, compiled=compiled)
            found.append({"length": length, "compiled": compiled, "tokens_per_s": tokens, "mfu": flops / (peak * 1e12)})
            how = "compiled" if compiled else "eager"
            print(
                f"length {length}, {how:8}  {tokens:10,.0f} tokens/s  {100 * found[-1]['mfu']:5.1f} % of {peak} TFLOPS"
            )
    print(json.dumps({"gpu": name, "peak_tflops": peak, "runs": found}))


if __name__ == "__main__":
    main()
