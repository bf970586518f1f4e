"""Choice by measurement: who is on the front, who may be chosen, who is, and what is said of the others."""

import json
import math

import pytest

from bertshrink.hardware import BFLOAT16_FLAGS
from bertshrink.report.measurement import Conditions, Measurement
from bertshrink.techniques.quantize.search.autotune import (
    CANDIDATES,
    FLOAT,
    Candidate,
    Limits,
    Trial,
    bfloat16_wins,
    candidates,
    choose,
    describe_cpu,
    front,
    rows,
    sentence,
)
from bertshrink.techniques.quantize.size_estimate import SCHEMES

NO_LIMITS = Limits(min_cosine=0.9)


def tried(scheme, size, ms, cosine=0.999, drop=None, noise=0.001, **options):
    """A candidate with five rounds of one shape, in step with those of all others."""
    rounds = [ms * (1 + noise * at) for at in (-2, 1, 0, 2, -1)]
    measured = Measurement(
        metric="latency",
        unit="s",
        samples=tuple((value / 1e3,) for value in rounds),
        better="lower",
        conditions=Conditions(target="cpu", threads=2, batch=8, length=128, phase="steady"),
    )
    return Trial(Candidate(scheme, options), size, cosine, drop, (measured,))


@pytest.mark.parametrize("engine", CANDIDATES)
def test_candidates_are_known_and_named_apart(engine):
    names = [one.name for one in CANDIDATES[engine]]
    assert len(set(names)) == len(names)
    assert names[0] == FLOAT
    assert {one.scheme for one in CANDIDATES[engine]} <= {FLOAT, *SCHEMES}


def test_bfloat16_is_tried_where_the_cpu_has_it():
    with_it = candidates("openvino", frozenset({next(iter(BFLOAT16_FLAGS))}))
    without = candidates("openvino", frozenset({"avx2"}))
    assert [one.name for one in with_it if one not in without] == ["float16 as bfloat16"]


def test_what_the_cpu_has_is_told():
    assert "no 8-bit dot products" in describe_cpu(frozenset({"avx2"}))
    assert "8-bit and bfloat16 products (amx_bf16, avx512_vnni)" in describe_cpu(
        frozenset({"avx512_vnni", "amx_bf16", "avx2"})
    )


def test_the_front_is_what_no_other_beats():
    plain, half = tried(FLOAT, 400, 100, 1.0), tried("float16", 200, 100.0, 1.0)
    small, worse = tried("dynamic-int8", 100, 60, 0.998), tried("static-int8", 101, 61, 0.997)
    failed = Trial(Candidate("block-int4"), failure="no such operator")
    assert front([plain, half, small, worse, failed]) == [half, small]


def test_the_fastest_within_the_limits_is_chosen():
    fast, slow = tried("dynamic-int8", 100, 60, 0.97), tried("float16", 200, 100, 0.9999)
    assert choose([slow, fast], NO_LIMITS) is fast
    assert choose([slow, fast], Limits(min_cosine=0.98)) is slow
    assert choose([slow, fast], Limits(min_cosine=0.9, max_size=150)) is fast
    assert choose([slow, fast], Limits(min_cosine=0.98, max_size=150)) is None


def test_a_drop_counts_before_the_cosine():
    dropped = tried("dynamic-int8", 100, 60, 0.9999, drop=0.02)
    rose = tried("block-int4", 90, 70, 0.95, drop=-0.001)
    assert choose([dropped, rose], Limits(min_cosine=0.9, max_drop=0.005)) is rose
    unlabelled = tried("dynamic-int8", 100, 60, 0.99)
    assert choose([unlabelled], Limits(min_cosine=0.9, max_drop=0.005)) is None


def test_of_those_alike_in_time_the_smallest_is_chosen():
    fastest = tried("static-int8", 110, 60, noise=0.02)
    close = tried("dynamic-int8", 100, 60.5, noise=-0.02)  # its rounds vary against the other's
    assert choose([fastest, close], NO_LIMITS) is close
    clearly = tried("dynamic-int8", 100, 70)
    assert choose([tried("static-int8", 110, 60), clearly], NO_LIMITS).candidate.scheme == "static-int8"


def test_wide_intervals_do_not_make_a_slow_file_alike():
    fastest = tried("float16", 200, 60, noise=0.4)
    slow = tried("dynamic-int8", 100, 66, noise=-0.4)
    assert all(interval.high >= 1 for interval in slow.speed_ups(fastest))
    assert choose([fastest, slow], NO_LIMITS) is fastest


def test_a_value_that_is_no_number_is_not_allowed():
    assert choose([tried("dynamic-int8", 100, 60, math.nan)], NO_LIMITS) is None
    assert choose([tried("dynamic-int8", 100, 60, 1.0, drop=math.nan)], Limits(0.9, max_drop=0.5)) is None


def test_bfloat16_that_wins_is_named():
    half, small = tried("float16", 200, 30, precision="bfloat16"), tried("dynamic-int8", 100, 60)
    assert "bfloat16 is faster than int8" in bfloat16_wins([half, small])
    assert bfloat16_wins([tried("float16", 200, 70, precision="bfloat16"), small]) == ""
    assert bfloat16_wins([tried("float16", 200, 30), small]) == ""


def test_every_candidate_is_told_and_kept():
    plain, small = tried(FLOAT, 400, 100, 1.0), tried("dynamic-int8", 100, 50, 0.998, drop=0.001)
    weak = tried("block-int4", 60, 90, 0.9)
    failed = Trial(Candidate("static-int8"), failure="it does not run: no such operator")
    limits = Limits(min_cosine=0.98)
    everyone = [plain, small, weak, failed]
    told = [sentence(row) for row in rows(everyone, small, limits)]
    assert len(told) == 4
    assert "2.00x [2.00, 2.00] as fast as float32; chosen" in told[1]
    assert "not allowed: cosine 0.9000 is below 0.98" in told[2]
    assert "no such operator" in told[3]
    kept = json.loads(json.dumps(rows(everyone, small, limits)))
    assert [row["chosen"] for row in kept] == [False, True, False, False]
    assert kept[1]["latency_s"] == {"8x128": pytest.approx(0.05)}
    assert kept[3]["failure"]
