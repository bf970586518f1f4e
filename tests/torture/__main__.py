"""`python -m tests.torture`: see this package's opening."""

import argparse
import os
import sys
import time

os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}

from tests.torture import graphs, models, stress, texts
from tests.torture.core import BAD, run_kind, table

KINDS = {kind.name: kind for module in (models, graphs, texts, stress) for kind in module.KINDS}


def main() -> int:
    """Run what is asked; the exit code says whether anything bad came."""
    parser = argparse.ArgumentParser(prog="make torture", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--full", action="store_true", help="the whole list")
    parser.add_argument("--only", default="", help="kinds, with commas; KIND:NUMBER is one case")
    parser.add_argument("--jobs", type=int, default=2)
    asked = parser.parse_args()
    began, tallies = time.monotonic(), {}
    _preload()
    models.home()
    texts.team()
    for name in filter(None, asked.only.split(",")) if asked.only else KINDS:
        name, _, number = name.partition(":")
        kind = KINDS[name]
        numbers = [int(number)] if number else list(range(kind.full if asked.full else kind.sample))
        print(f"{name}: {len(numbers)}", file=sys.stderr, flush=True)
        tallies[name] = run_kind(kind, asked.seed, numbers, asked.jobs)
    print("\n".join(table(tallies)))
    failures = sum(tally.counts[bad] for tally in tallies.values() for bad in BAD)
    print(f"\nseed {asked.seed}, {time.monotonic() - began:.0f} s, {failures} failures")
    return 1 if failures else 0


def _preload() -> None:
    """Libraries that every forked process would load for itself; nothing of them is run here."""
    import sentence_transformers  # noqa: F401
    import torch
    import transformers  # noqa: F401

    import bertshrink.cli.app
    import bertshrink.model.encoder  # noqa: F401

    torch.set_num_threads(1)


if __name__ == "__main__":
    sys.exit(main())
