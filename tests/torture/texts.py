"""Files that people write: recipes, data, a gate's files. Judged by csv, json, tomllib and plain YAML."""

import contextlib
import csv
import io
import itertools
import json
import os
import random
import shutil
import tomllib
from functools import cache, partial
from pathlib import Path
from typing import Any

from tests.torture.core import Kind, Probe, forked
from tests.torture.models import home
from tests.torture.mutations import RAW, spoil, spoil_text

RECIPE = """\
# a comment
name: small
model: teacher
data: {path: data.tsv, max_train: 100}
seed: 3
stages:
  - distill: {layers: 3, epochs: 0.5, layer_map: [1, 2, 4], temperature: 2.0}
  - export
  - quantize:
      min_cosine: 0.99
measure:
  latency: {batch: [1, 8], length: [16, 128]}
"""
VALUES = (
    *("2020-01-01", "2020-01-01T10:00:00Z", "12:30:45", "~", "null", "yes", "0o17", "0x1F", "1_000", "1e400", ".nan"),
    *(
        "-.inf",
        "9" * 5000,
        "'x",
        '"\\0"',
        '"\\ud800"',
        "*a",
        "&a [*a]",
        "!!binary aGk=",
        "!!str 3",
        "!foo 3",
        "!!int x",
    ),
    *("!!python/object/apply:os.system [x]", "[" * 3000, "{" * 3000, "- " * 500, "? [a]", "|\n   x", "<<", "@x", "`x`"),
    *("[]", "{}", "''", "n" * 100_000, "3", "-1", "true", "x: y", "٣", "{a: 1, a: 2}", "%", "# x"),
)


def recipes(rng: random.Random, folder: Path) -> Probe:
    """A recipe: a value, or its text."""
    path = folder / "r.yaml"
    lines = RECIPE.splitlines()
    deed = rng.random()
    if deed < 0.6:
        at = rng.choice([i for i, line in enumerate(lines) if ": " in line])
        value = rng.choice(VALUES)
        key = lines[at].partition(": ")[0]
        lines[at] = f"{key}: {value}"
        data, what = ("\n".join(lines) + "\n").encode(), f"{key.strip()} is {value[:20]!r}"
    elif deed < 0.7:
        names = [f"a{i}" for i in range(20)]
        bomb = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
        bomb += [f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]" for a, b in itertools.pairwise(names)]
        text = "\n".join(bomb[: rng.randrange(2, 20)]) + "\n" + RECIPE
        data, what = text.encode(), "aliases of aliases"
    else:
        data, what = spoil_text(rng, RECIPE)
    path.write_bytes(data)
    if rng.random() < 0.05:
        path.unlink()
        os.mkfifo(path)
        what = "a pipe"

    def act() -> Any:
        from bertshrink.config.located_yaml import RECIPE as READER
        from bertshrink.config.located_yaml import read_yaml
        from bertshrink.recipe.recipe import read_recipe

        read_recipe(path)
        return read_yaml(READER.read_text(path), str(path)).values

    def judge(found: Any) -> bool:
        from ruamel.yaml import YAML

        return _same(found, YAML(typ="base", pure=True).load(data.decode("utf-8-sig")))

    return Probe(f"recipe: {what}", act, judge, (2,))


def _same(found: Any, words: Any) -> bool:
    """Whether values are those of a tree whose leaves are the words as written."""
    if isinstance(found, dict) and isinstance(words, dict):
        return {str(k) for k in found} == {str(k) for k in words} and all(_same(found[k], words[k]) for k in found)
    if isinstance(found, list) and isinstance(words, list):
        return len(found) == len(words) and all(map(_same, found, words))
    if isinstance(found, bool) or found is None:
        return str(words).lower() in (("true", "false")[not found], *(("", "null", "~") if found is None else ()))
    if isinstance(found, int) and str(words).startswith(("0x", "0o")):
        return found == int(words, 0)
    if isinstance(found, int | float):
        return float(str(words).replace("_", "")) == found
    return str(found) == str(words)


ROWS = [
    (f'text "{i}", number {i * 7}' + (", ä" if i % 5 == 0 else ""), ("good", "bad", "NA")[i % 3]) for i in range(60)
]


def _csv(rows: list[tuple[str, str]], delimiter: str) -> str:
    out = io.StringIO()
    csv.writer(out, delimiter=delimiter, lineterminator="\n").writerows([("text", "label"), *rows])
    return out.getvalue()


def data(rng: random.Random, folder: Path) -> Probe:
    """A table, a CoNLL file or a SQuAD file."""
    kind = rng.choice(("csv", "tsv", "jsonl", "json"))
    path = folder / f"data.{kind}"
    if kind in ("csv", "tsv"):
        text = _csv(ROWS, "," if kind == "csv" else "\t")
    else:
        rows = [{"text": text, "label": label} for text, label in ROWS]
        text = json.dumps(rows) if kind == "json" else "".join(json.dumps(row) + "\n" for row in rows)
    deed = rng.random()
    if deed < 0.6 or kind in ("csv", "tsv"):
        spoilt, what = spoil_text(rng, text)
    else:
        odd = rng.choice([*RAW.values(), "null", "[]", "{}", '"\\ud800"', "3", "true", '{"a": {"b": 1}}', '"\\u0000"'])
        side = rng.choice(('"good"', json.dumps(ROWS[4][0])))
        spoilt, what = text.replace(side, odd, 1).encode(), f"{side[:8]} is {odd[:10]}"
    path.write_bytes(spoilt)
    if rng.random() < 0.05:
        path.unlink()
        os.mkfifo(path)
        what = "a pipe"

    def act() -> Any:
        from bertshrink.data.load import load
        from bertshrink.data.settings import DataSettings

        found = load(DataSettings(path=str(path)))
        sides = [side for side in (found.train, found.dev, found.test) if side is not None]
        return sorted({(row.text, str(row.label)) for side in sides for row in side})

    def judge(found: Any) -> bool:
        # Quotes of a table with tabs are quotes or letters: either is a reading of all rows.
        return any(set(found) == _rows(path, kind, quoting) for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_NONE))

    return Probe(f"{kind}: {what}", act, judge, (2,))


def _rows(path: Path, kind: str, quoting: Any) -> set[tuple[str, str]]:
    """The rows as written, without those that have no text; none where they cannot be read."""
    raw = path.read_bytes()
    try:
        text = raw.decode("utf-16" if raw.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig")
    except UnicodeDecodeError:
        text = raw.decode("cp1252", "replace")
    if kind in ("csv", "tsv"):
        delimiter = "," if kind == "csv" else "\t"
        with contextlib.suppress(csv.Error):
            rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True, quoting=quoting))
            if len({len(row) for row in rows if row}) == 1:
                head = [name.strip().lower() for name in rows[0]]
                at = head.index("text"), head.index("label")
                return {(row[at[0]], row[at[1]]) for row in rows[1:] if row and row[at[0]].strip()}
        return set()
    read = partial(json.loads, parse_int=str, parse_float=str)  # numbers are texts as they are written
    values = read(text) if kind == "json" else [read(line) for line in text.splitlines() if line.strip()]
    return {(row["text"], str(row["label"])) for row in values if isinstance(row["text"], str) and row["text"].strip()}


@cache
def team() -> Path:
    """A repository with an artifact, limits, a lock and a report; what it says when nothing is spoilt."""
    folder = home() / "team"
    how, said = forked(lambda: _make_team(folder), 600)
    if how != "value":
        raise RuntimeError(f"the repository cannot be made: {how} {said}")
    return folder


def _make_team(folder: Path) -> None:
    from bertshrink.cli.app import run
    from tests.support.gate_fixtures import accuracy, artifact, commit, git, outcomes, report

    file = artifact(folder / "dist" / "model.onnx")
    report(folder / "report.json", file, accuracy(outcomes()))
    (folder / "bertshrink.toml").write_text(LIMITS)
    git(folder, "init", "-q", "-b", "main")
    os.chdir(folder)
    if code := run(["gate", "--update"]):
        raise RuntimeError(f"gate --update: exit code {code}")
    commit(folder)
    git(folder, "checkout", "-q", "-b", "change")
    (folder / "base.json").write_text(json.dumps(_judged(folder)))


LIMITS = """\
[gate]
artifact = "dist/model.onnx"
report = "report.json"
size = "<= 200 kB"
size_growth = "<= 0.5%"
parameters = "<= 1 M"
new_operators = "<= 0"
accuracy = ">= 50%"
accuracy_drop = { limit = "<= 0.5 pt", severity = "warn" }
"""
TOML_VALUES = (
    *('"<= ٢٠٠ kB"', '"<= 1e400 B"', '"<= NaN kB"', '"<= -1 kB"', '"< 200 kB"', '"200 kB"', '""', '" "', '"\\u0000"'),
    *(
        "inf",
        "nan",
        "9" * 5000,
        "9" * 50,
        "true",
        "[]",
        "{}",
        "[" * 2000,
        "{a=" * 500,
        "2020-01-01",
        '"../x"',
        '"/dev/zero"',
    ),
    *(
        '"<= 200 kB\\u0000"',
        '"<= ２００ kB"',
        '"<= 200 kＢ"',
        '"<= 1_0 kB"',
        '"<= 0x10 B"',
        '"n' + "n" * 5000 + '"',
        "'x'",
    ),
)


def gates(rng: random.Random, folder: Path) -> Probe:
    """The lock, the report, the limits of a gate."""
    place = folder / "team"
    shutil.copytree(team(), place, symlinks=True)
    name = rng.choice(("bertshrink.toml", "bertshrink.toml", "bertshrink.lock.json", "report.json"))
    path = place / name
    if name.endswith(".toml") and rng.random() < 0.6:
        lines = LIMITS.splitlines()
        at = rng.randrange(1, len(lines))
        key, value = lines[at].partition(" = ")[0], rng.choice(TOML_VALUES)
        lines[at] = f"{key} = {value}"
        if rng.random() < 0.1:
            lines.append(".".join("a" * rng.choice((100, 50_000))) + " = 1")
        path.write_text("\n".join(lines) + "\n")
        what = f"{key} is {value[:20]}"
    else:
        what = spoil(rng, path)

    def judge(found: dict[str, Any]) -> bool:
        base = json.loads((team() / "base.json").read_text())
        if name != "bertshrink.toml":
            return all(_as_before(found, base, rule, path) for rule in base["rules"])
        table = tomllib.loads(path.read_bytes().decode("utf-8-sig"))["gate"]
        limits = {
            k: v["limit"] if isinstance(v, dict) else v for k, v in table.items() if k not in ("artifact", "report")
        }
        told = {rule: about["limit"] for rule, about in found["rules"].items()}
        return told == limits and all(text.isascii() for text in limits.values())

    return Probe(f"{name}: {what}" if name not in what else what, lambda: _judged(place), judge, (2, 4, 5))


def _as_before(found: dict[str, Any], base: dict[str, Any], rule: str, path: Path) -> bool:
    """Whether a rule is judged as without the change; of a spoilt report the figure is that which is there."""
    mine, theirs = found["rules"].get(rule), base["rules"][rule]
    if mine is None or (mine["verdict"], mine["now"]) == (theirs["verdict"], theirs["now"]):
        return mine is not None
    if path.name == "bertshrink.lock.json" or not rule.startswith("accuracy"):
        return found["code"] == 4  # the baseline is said not to serve
    return mine["verdict"] != "pass" or str(mine["now"]) in path.read_text("utf-8-sig")


def _judged(folder: Path) -> dict[str, Any]:
    """What `gate --json` says; a refusal is raised again with its parts."""
    from bertshrink.cli import app
    from bertshrink.errors import UserError, UserErrors

    for name in [name for name in os.environ if name.startswith(("GITHUB_", "CI_"))]:
        del os.environ[name]
    os.chdir(folder)
    caught: list[tuple[Any, Any, Any]] = []
    app._print_error = lambda *parts: caught.append(parts)
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        code = app.run(["gate", "--json"])
    if code == app.BUG:
        raise RuntimeError(f"exit code 70: {caught}")
    if caught:
        faults = [UserError(what, where=where, hint=hint) for what, where, hint in caught]
        refusal = UserErrors(faults)
        refusal.exit_code = code
        raise refusal
    data = json.loads(out.getvalue())
    return {"code": code, "rules": {rule["rule"]: rule for one in data["artifacts"] for rule in one["rules"]}}


KINDS = (
    Kind("recipes", recipes, 430, 150),
    Kind("data", data, 380, 120),
    Kind("gate", gates, 500, 120),
)
