"""Gates turn measurements into a verdict: limits and a committed baseline in, pass, fail or inconclusive out.

    limits/      config.py: limits, as written in pyproject.toml, bertshrink.toml or a recipe, every one with its place;
                 read_limits.py: its entries, of which metric_key.py reads the key and limit.py the limit;
                 first_limits.py: from today's figures
    figures/     figure.py: one figure with what must be alike to compare it; file_metrics.py: what a file shows
    baseline/    lock.py: the baseline, a committed file; merge_base.py: as it was before this change. git_queries.py
                 asks git, ci.py reads CI's variables, base_commit.py finds the commit that the change left its base at,
                 lineage.py which entry of that commit's locks is which artifact of today; newness.py: what the base
                 does not know; growth.py: which tensors, layers and operators grew
    judge.py     one rule, a figure and its baseline -> a finding; paired_test.py: the exact test for accuracy
    paired_timing.py   two artifacts timed in turn, for the one rule that is about time
    verdict.py   all rules of all artifacts -> the verdict and its exit code; checkout.py: of a repository's own limits
    update.py    the next baseline; recipe_gates.py: a recipe's own gates
    show/        terminal, JSON, JUnit, Markdown, GitHub, OpenMetrics

Static rules need no engine: a file's header shows its bytes, tensors and operators. What is uncertain (an answer lost
by chance, a noisy machine) never fails a gate; what cannot be judged (no file, no figure, another unit, another data
set, another engine, a damaged baseline) never passes one.
"""
