"""Gates turn measurements into a verdict: limits and a committed baseline in, pass, fail or inconclusive out.

    config.py    limits, as written in pyproject.toml, bertshrink.toml or a recipe, every one with its place (places.py)
    rules.py     its entries: metrics.py reads the key, limits.py the limit
    reading.py   one figure with what must be alike to compare it; facts.py: the figures that a file shows
    lock.py      the baseline, a committed file; history.py: as it was before this change
                 git.py asks git, ci.py reads CI's variables, base.py finds the commit that the change left its base at,
                 lineage.py which entry of that commit's locks is which artifact of today
    judge.py     one rule, a figure and its baseline -> a finding; paired.py: the exact test for accuracy;
                 newness.py: what the base does not know
    blame.py     which tensors, layers and operators grew
    race.py      two artifacts timed in turn, for the one rule that is about time
    verdict.py   all rules of all artifacts -> the verdict and its exit code
    update.py    the next baseline; first_limits.py: from today's figures; of_run.py: a recipe's own gates
    show/        terminal, JSON, JUnit, Markdown, GitHub, OpenMetrics

Static rules need no engine: a file's header shows its bytes, tensors and operators. What is uncertain (an answer lost
by chance, a noisy machine) never fails a gate; what cannot be judged (no file, no figure, another unit, another data
set, another engine, a damaged baseline) never passes one.
"""
