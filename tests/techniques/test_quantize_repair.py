"""Repair: the search itself, on made-up weights whose drops are known."""

import math

import pytest

from bertshrink.techniques.quantize.search.mixed_precision import WIDER, Attempt, MixedPrecisionSearch, widen

BITS = {"int4-block": 4, "int8-block": 8, "int8-dynamic": 8, "float16": 16, "float32": 32}


def search(drops, sizes, limit, start="int4-block"):
    """A search where a weight's drop is known by name and type, and drops add up."""
    seen = []

    def size(name, kind):
        return sizes[name] * BITS[kind] // 8

    def judge(types):
        seen.append(dict(types))
        total = sum(size(name, kind) for name, kind in types.items())
        return Attempt(types, total, sum(drops[name].get(kind, 0.0) for name, kind in types.items()))

    def error(types):
        return sum(drops[name].get(kind, 0.0) for name, kind in types.items())

    repair = MixedPrecisionSearch(judge, error, size, limit).run(dict.fromkeys(drops, start))
    return repair, repair.best, seen


def test_what_holds_as_asked_is_taken():
    repair, found, seen = search({"a": {"int4-block": 0.001}}, {"a": 100}, limit=0.005)
    assert found.types == {"a": "int4-block"}
    assert len(seen) == 1
    assert [step.holds for step in repair.road] == [True]


def test_the_worst_for_its_bytes_is_widened_and_nothing_else():
    drops = {name: {"int4-block": 0.001} for name in "abcdefgh"}
    drops["c"] = {"int4-block": 0.02}
    repair, found, _ = search(drops, dict.fromkeys(drops, 100), limit=0.01)
    assert [name for name, kind in found.types.items() if kind != "int4-block"] == ["c"]
    assert found.types["c"] == "int8-block"
    assert found.drop <= 0.01
    assert repair.gains["c"] == pytest.approx(0.02)
    assert repair.road[0].drop > 0.01


def test_what_proves_not_to_be_needed_is_given_back():
    # Worst first for their bytes: s, L, m. s alone does not hold, s with L does; then s turns out not to be needed.
    drops = {"s": {"int4-block": 0.010}, "L": {"int4-block": 0.030}, "m": {"int4-block": 0.0002}}
    repair, found, _ = search(drops, {"s": 10, "L": 1000, "m": 900}, limit=0.0301)
    assert found.types == {"s": "int4-block", "L": "int8-block", "m": "int4-block"}
    assert [step.what for step in repair.road][-2:] == ["`L` narrow again", "`s` narrow again"]


def test_a_rung_that_does_not_suffice_leads_to_the_next():
    drops = {"a": {"int4-block": 0.5, "int8-block": 0.1}, "b": {"int4-block": 0.5, "int8-block": 0.001}}
    repair, found, _ = search(drops, {"a": 100, "b": 100}, limit=0.01)
    assert found.types == {"a": "float16", "b": "int8-block"}
    assert [step.holds for step in repair.road].index(True) > 1


def test_none_where_nothing_holds():
    drops = {"a": dict.fromkeys(BITS, 0.5)}
    repair, found, _ = search(drops, {"a": 100}, limit=0.01)
    assert found is None
    assert len(repair.road) == 4
    assert not any(step.holds for step in repair.road)


def test_a_drop_that_is_no_number_does_not_hold():
    repair, found, _ = search({"a": dict.fromkeys(BITS, math.nan)}, {"a": 100}, limit=1.0)
    assert found is None
    assert math.isnan(repair.road[0].drop)


@pytest.mark.parametrize("kind", WIDER)
def test_every_type_ends_in_float32(kind):
    for _ in range(4):
        kind = WIDER.get(kind, kind)
    assert kind == "float32"


def test_widen_changes_the_named_only():
    assert widen({"a": "int8-static", "b": "int8-static"}, ["b"]) == {"a": "int8-static", "b": "int8-dynamic"}


def test_the_result_is_as_small_as_the_best_of_all_assignments_on_a_plain_case():
    from itertools import product

    drops = {"a": 0.004, "b": 0.003, "c": 0.002, "d": 0.001}
    sizes = {"a": 100, "b": 100, "c": 100, "d": 100}
    table = {name: {"int4-block": drop} for name, drop in drops.items()}
    _, found, _ = search(table, sizes, limit=0.0035)
    best = min(
        sum(sizes[n] * (8 if wide else 4) // 8 for n, wide in zip(drops, choice, strict=True))
        for choice in product((False, True), repeat=4)
        if sum(d for d, wide in zip(drops.values(), choice, strict=True) if not wide) <= 0.0035
    )
    assert found.size_bytes == best
