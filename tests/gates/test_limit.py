"""Limits as people write them: what each means, where it is, and what a wrong one is told."""

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertshrink import units
from bertshrink.config.located_toml import places_of
from bertshrink.config.located_yaml import read_yaml
from bertshrink.errors import UserError, UserErrors
from bertshrink.gates.limits.config import find_config, read_config
from bertshrink.gates.limits.limit import read_limit
from bertshrink.gates.limits.metric_key import HOST, MetricKey, measured_key, read_key, rule_names
from bertshrink.recipe.recipe import build
from bertshrink.report.measurement import Conditions
from bertshrink.report.metrics import METRICS
from tests.support.gate_fixtures import floats

HEAD = '[tool.bertshrink.gate]\nartifact = "m.onnx"\n'


@pytest.mark.parametrize(
    ("key", "text", "value", "unit"),
    [
        ("size", "<= 25 MB", 25e6, "B"),
        ("size", "<=25MiB", 25 * 1024**2, "B"),
        ("size_growth", "<= 0.5%", 0.005, "B%"),
        ("size_growth", "<= 100 kB", 1e5, "B"),
        ("accuracy", ">= 0.915", 0.915, "fraction"),
        ("accuracy", ">= 91.5%", 0.915, "fraction"),
        ("accuracy_drop", "<= 0.5 pt", 0.005, "fraction"),
        ("accuracy_drop", "<= 0.5%", 0.005, "%"),
        ("spearman_drop", "<= 1%", 0.01, "%"),
        ("spearman_drop", "<= 0.01", 0.01, ""),
        ("arm64:a76 instructions", "<= 26 M", 26e6, "count"),
        ("cpu p50 ratio", "<= 1.10", 1.1, "x"),
        ("cpu p50 1x64 ratio", "<= 1.1x", 1.1, "x"),
        ("operator:MatMul", ">= 12", 12, "count"),
        ("pseudo_perplexity growth", "<= 1%", 0.01, "%"),
    ],
)
def test_a_limit_means_what_it_says(key, text, value, unit):
    limit = read_limit(text, read_key(key))
    assert limit.value == pytest.approx(value, rel=1e-15)
    assert limit.unit + ("%" if limit.is_share else "") == (unit if not limit.is_share else f"fraction{unit[-1]}")
    assert limit.sign == text[:2]


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("size", "25 MB"),
        ("size", "< 25 MB"),
        ("size", ">= 25 MB"),
        ("size", "<= 12 ms"),
        ("size", "<= 0.5%"),
        ("size", "<= -1 MB"),
        ("size", "<= nan"),
        ("size", "<= inf B"),
        ("size", "<= 1e999 MB"),
        ("size", ""),
        ("size_growth", "<= 0.005"),
        ("accuracy", "<= 0.9"),
        ("accuracy", ">= 91.5"),
        ("accuracy", ">= 1.01"),
        ("accuracy_drop", "<= 0.005"),
        ("accuracy_drop", ">= 0.5 pt"),
        ("cpu p50 ratio", "<= 10%"),
        ("cpu p50 ratio", "<= 0"),
        ("cpu p50 ratio", ">= 1.1"),
    ],
)
def test_a_limit_that_is_none_shows_one_that_is(key, text):
    with pytest.raises(UserError) as found:
        read_limit(text, read_key(key))
    example = found.value.hint.partition('"')[2].rstrip('"')
    assert found.value.what
    assert read_limit(example, read_key(key)), "what is shown can be written"


@pytest.mark.parametrize("name", rule_names())
def test_every_rule_reads_and_writes_itself(name):
    key = read_key(name)
    assert read_key(str(key)) == key
    assert key.gauge is METRICS[key.metric].gauge


def test_every_quality_of_the_reports_can_be_limited():
    ours = {name for name, metric in METRICS.items() if metric.gauge and metric.gauge.source == "quality"}
    assert ours == {name for name, metric in METRICS.items() if metric.group == "quality"}
    lower = {name for name in ours if METRICS[name].gauge.better == "lower"}
    assert lower == {"pseudo_perplexity", "score_difference", "active_dimensions"}


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("sise", "did you mean `size`?"),
        ("size_grow", "did you mean `size_growth`?"),
        ("acuracy_drop", "did you mean `accuracy_drop`?"),
        ("accuracy_growth", "write `accuracy_drop`"),
        ("size_drop", "write `size_growth`"),
        ("size ratio", "write `size_growth`"),
        ("new_operators_growth", "write `new_operators`"),
        ("cpu size", "write it alone"),
        ("size 1x16", "write it alone"),
        ("cpu p50", "--base-artifact"),
        ("arm64:a76 p50 ratio", "leave the target out"),
        ("memory 1x16", "leave the shape out"),
        ("operator:", None),
        ("a b c d", None),
        ("", None),
    ],
)
def test_a_key_that_is_none_says_which_was_meant(text, hint):
    with pytest.raises(UserError) as found:
        read_key(text)
    assert hint is None or hint in found.value.hint


SHAPES = st.none() | st.tuples(st.integers(1, 64), st.integers(1, 512))
TARGETS = st.none() | st.sampled_from(["arm64:a76", "arm64:a53", HOST])


@given(TARGETS, SHAPES, st.sampled_from(["", "growth"]))
def test_keys_of_instructions_round_trip(target, shape, change):
    key = MetricKey("instructions", change, target, shape)
    assert read_key(str(key)) == key
    assert str(key).split() == str(key).strip().split()


@given(TARGETS, SHAPES)
def test_names_in_the_lock_are_keys(target, shape):
    batch, length = shape or (None, None)
    key = measured_key("instructions", Conditions(target=target or HOST, batch=batch, length=length))
    assert read_key(str(key)) == key
    assert key == MetricKey("instructions", "", None if target == HOST else target, shape)


SUFFIXES = {"size": ["B", "kB", "MB", "GB", "KiB", "MiB", "GiB"], "parameters": ["", "k", "M", "G"]}


@given(
    st.sampled_from(["size", "parameters"]).flatmap(
        lambda name: st.tuples(st.just(name), st.sampled_from(SUFFIXES[name]))
    ),
    st.decimals(0, 10**6, allow_nan=False, places=3),
    st.sampled_from(["", " ", "  "]),
)
def test_limits_and_units_round_trip(named, number, blank):
    suffix, key = named[1], read_key(named[0])
    limit = read_limit(f"<={blank}{number}{blank}{suffix}", key)
    assert read_limit(limit.text, key) == limit
    value, unit = units.parse(f"{number} {suffix}")
    assert (limit.value, limit.unit) == (value, unit)
    assert limit.is_held(limit.value)
    shown, _ = units.parse(units.format(value, unit, 12))
    assert shown == pytest.approx(value, rel=1e-9)


@given(floats(0, 1e12), floats(0, 1e12))
def test_a_limit_is_a_bound(value, bound):
    limit = read_limit(f"<= {bound!r} B", read_key("size"))
    if value <= bound:
        assert limit.is_held(value)
    if value > bound * (1 + 1e-9):
        assert not limit.is_held(value)


def test_a_byte_past_the_limit_of_a_large_file_is_seen():
    limit = read_limit("<= 2 GB", read_key("size"))
    assert limit.is_held(2e9)
    assert not limit.is_held(2e9 + 1)


# Configurations


def config(tmp_path, text, name="pyproject.toml"):
    (tmp_path / name).write_text(text)
    return read_config(tmp_path / name)


def test_places_are_those_of_the_keys(tmp_path):
    text = HEAD + '# a comment = 1\nsize = "<= 1 MB"   # why\n  "cpu p50 ratio" = { limit = "<= 1.10" }\n'
    text += 'accuracy_drop = """<= 0.5 pt"""\n[tool.bertshrink.gate.anchor]\nref = "v1"\nsize_growth = "<= 3%"\n'
    found = config(tmp_path, text)
    places = {str(rule): rule.place.rpartition("pyproject.toml:")[2] for rule in found.rules}
    assert places == {
        "size <= 1 MB": "4:1",
        "cpu p50 ratio <= 1.10": "5:3",
        "accuracy_drop <= 0.5 pt": "6:1",
        "size_growth since v1 <= 3%": "9:1",
    }


def test_times_only_warn_unless_told():
    rules = build_rules({"size": "<= 1 MB", "cpu p50 ratio": "<= 1.1"})
    assert [rule.severity for rule in rules] == ["fail", "warn"]
    rules = build_rules({"cpu p50 ratio": {"limit": "<= 1.1", "severity": "fail"}})
    assert [rule.severity for rule in rules] == ["fail"]


def build_rules(gates):
    source = read_yaml("model: m\nstages: [export]\ngates: {}\n", "r.yaml")
    source.values["gates"] = gates
    return build(source, "", "r").gates


@pytest.mark.parametrize(
    ("line", "what", "hint"),
    [
        ('sise = "<= 1 MB"', "there is no rule `sise`", "did you mean `size`?"),
        ('reports = "r.json"', "there is no rule `reports`", "did you mean `report`?"),
        ("size = 25", "`size` is `25`, which is not a limit", '"<= 25"'),
        ("size = true", "`size` is `True`, which is not a limit", "write them as"),
        ('size = "25 MB"', "`25 MB` is not a limit", '"<= 25 MB"'),
        ('size = {limit = "<= 1 MB", sevrity = "warn"}', "has no setting `sevrity`", "did you mean `severity`?"),
        ('size = {limit = "<= 1 MB", severity = "error"}', "`error` is not a severity", "`fail` or `warn`"),
        ('size = "<= 1 MB"\nseverity = "no"', "`no` is not a severity", "`fail` or `warn`"),
        ('size_growth = "<= 1%"\n"size growth" = "<= 2%"', "repeats an entry", "pyproject.toml:3:1"),
        ('baseline = 3\nsize = "<= 1 MB"', "`baseline` is `3`", "lock file"),
        ('[tool.bertshrink.gate.anchor]\nsize_growth = "<= 3%"', "`anchor` has no `ref`", "v1.0.0"),
        (
            '[tool.bertshrink.gate.anchor]\nref = "v1"\nsize = "<= 3 MB"',
            "an anchor can only limit changes",
            "size_growth",
        ),
        ("[tool.bertshrink.gate.latency]\nrounds = 2\n", "2 rounds are too few", "at least 5"),
        ("[tool.bertshrink.gate.latency]\nround = 10\n", "has no setting `round`", "did you mean `rounds`?"),
        ('[tool.bertshrink.gate.artifacts.a]\nsize = "<= 1 MB"', "the artifact `a` has no `path`", "give its path"),
        ("", "there are no limits", "write them as"),
    ],
)
def test_a_wrong_configuration_says_where(tmp_path, line, what, hint):
    with pytest.raises(UserError) as found:
        config(tmp_path, f"{HEAD}{line}\n")
    error = found.value.faults[0] if isinstance(found.value, UserErrors) else found.value
    assert what in error.what
    assert hint in error.hint
    assert "pyproject.toml:" in error.where


def test_all_faults_are_told_at_once(tmp_path):
    with pytest.raises(UserErrors) as found:
        config(tmp_path, f'{HEAD}sise = "<= 1 MB"\naccuracy = "<= 1"\nnodes = 3\n')
    assert [fault.where.rpartition(":")[0].rpartition(":")[2] for fault in found.value.faults] == ["3", "4", "5"]


def test_limits_are_found_upwards_and_in_one_file(tmp_path):
    (tmp_path / ".git").mkdir()
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    assert find_config(inner) is None
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "x"\n')
    assert find_config(inner) is None
    (tmp_path / "bertshrink.toml").write_text('[gate]\nartifact = "m"\nsize = "<= 1 MB"\n')
    assert find_config(inner)[0] == tmp_path / "bertshrink.toml"
    assert read_config(tmp_path / "bertshrink.toml").gated[0].rules[0].limit.value == 1e6
    (tmp_path / "pyproject.toml").write_text(HEAD)
    with pytest.raises(UserError, match="two files"):
        find_config(inner)


def test_a_file_that_is_no_toml_says_where(tmp_path):
    with pytest.raises(UserError, match="not TOML") as found:
        config(tmp_path, "[tool.bertshrink.gate]\nsize = = 3\n")
    assert found.value.where.endswith("pyproject.toml:2:8")


def test_a_recipe_holds_limits_too(tmp_path):
    text = 'model: m\nstages: [export]\ngates:\n  size: "<= 20 MB"\n  operator:MatMul: "<= 12"\n'
    (tmp_path / "r.yaml").write_text(text + "  artifact: dist\n")
    assert [str(rule) for rule in read_config(tmp_path / "r.yaml").rules] == ["size <= 20 MB", "operator:MatMul <= 12"]
    with pytest.raises(UserError, match="no rule `sizes`"):
        build(read_yaml(text.replace("size:", "sizes:"), "r.yaml"), text, "r")
    with pytest.raises(UserError, match="there is none"):
        build(read_yaml(text.replace("[export]", "[]"), "r.yaml"), text, "r")


NAMES = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), min_size=1, max_size=8)
VALUES = st.sampled_from(
    ['"x"', "'y = 3'", '"""a\nb = [1"""', "'''c'd\n[e]'''", "[1, [2,\n 3], '#']", "1.5", "{a = 1}"]
)


@given(st.lists(st.tuples(NAMES, VALUES), max_size=6, unique_by=lambda pair: pair[0]), st.booleans())
def test_every_key_has_its_own_line(pairs, with_header):
    """Any valid TOML: each key's place is the line that starts with it."""
    lines = ["[a.'b c']"] if with_header else []
    quoted = [(name, name.replace("\\", "\\\\").replace('"', '\\"'), value) for name, value in pairs]
    starts, number = {}, len(lines) + 1
    for name, shown, value in quoted:
        starts[name] = number
        lines.append(f'  "{shown}" = {value} # z = "')
        number += 1 + value.count("\n")
    text = "\n".join(lines) + "\n"
    tomllib.loads(text)
    found = places_of(text, "f")
    before = ("a", "b c") if with_header else ()
    for name, line in starts.items():
        assert found[(*before, name)] == f"f:{line}:3"
