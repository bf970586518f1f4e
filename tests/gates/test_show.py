"""What CI systems are given: GitHub's escaping and limits, JUnit by its schema, OpenMetrics by its grammar."""

import json
import re
from dataclasses import replace
from urllib.parse import unquote

import pytest
import xmlschema
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from bertshrink.cli.app import run
from bertshrink.gates.baseline.growth import Growth
from bertshrink.gates.judge import Finding, Verdict
from bertshrink.gates.limits.limit import Rule, read_limit
from bertshrink.gates.limits.metric_key import read_key
from bertshrink.gates.show import github, json_openmetrics, junit, markdown, terminal
from bertshrink.gates.verdict import Judged, Judgement
from tests.support.gate_fixtures import artifact

# The form that Jenkins publishes for its xUnit plugin, as far as test suites go: names, order and types.
SCHEMA = """<?xml version="1.0"?>
<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema">
  <xs:complexType name="problem" mixed="true">
    <xs:attribute name="type" type="xs:string"/>
    <xs:attribute name="message" type="xs:string"/>
  </xs:complexType>
  <xs:element name="testcase"><xs:complexType>
    <xs:choice minOccurs="0">
      <xs:element name="skipped" type="problem"/>
      <xs:element name="error" type="problem"/>
      <xs:element name="failure" type="problem"/>
    </xs:choice>
    <xs:attribute name="name" type="xs:string" use="required"/>
    <xs:attribute name="classname" type="xs:string" use="required"/>
    <xs:attribute name="time" type="xs:decimal"/>
  </xs:complexType></xs:element>
  <xs:element name="testsuite"><xs:complexType>
    <xs:sequence>
      <xs:element ref="testcase" minOccurs="0" maxOccurs="unbounded"/>
      <xs:element name="system-out" type="xs:string" minOccurs="0"/>
      <xs:element name="system-err" type="xs:string" minOccurs="0"/>
    </xs:sequence>
    <xs:attribute name="name" type="xs:string" use="required"/>
    <xs:attribute name="tests" type="xs:nonNegativeInteger" use="required"/>
    <xs:attribute name="failures" type="xs:nonNegativeInteger" use="required"/>
    <xs:attribute name="errors" type="xs:nonNegativeInteger" use="required"/>
    <xs:attribute name="skipped" type="xs:nonNegativeInteger"/>
    <xs:attribute name="time" type="xs:decimal"/>
  </xs:complexType></xs:element>
  <xs:element name="testsuites"><xs:complexType>
    <xs:sequence><xs:element ref="testsuite" minOccurs="0" maxOccurs="unbounded"/></xs:sequence>
    <xs:attribute name="name" type="xs:string"/>
    <xs:attribute name="tests" type="xs:nonNegativeInteger"/>
    <xs:attribute name="failures" type="xs:nonNegativeInteger"/>
    <xs:attribute name="errors" type="xs:nonNegativeInteger"/>
    <xs:attribute name="skipped" type="xs:nonNegativeInteger"/>
  </xs:complexType></xs:element>
</xs:schema>"""
JUNIT = xmlschema.XMLSchema(SCHEMA)

COMMAND = re.compile(r"::(error|warning) (?P<properties>[^\r\n]*?)::(?P<message>[^\r\n]*)")
EVIL = "100% <b>:,::\r\n`x`|\x1b[31m\u202e\x00"


def finding(verdict=Verdict.FAIL, text="too large", severity="fail", cause="limit", place="pyproject.toml:3:1"):
    key = read_key("size_growth")
    rule = Rule(key, read_limit("<= 0.5%", key), severity, place)
    cause = cause if verdict is Verdict.FAIL else None
    return Finding(key, rule, verdict, text, cause, "measure it", 2.0, 1.0, 1.0)


def judgement(*findings, name="a", strict=False, grown=()):
    return Judgement((Judged(name, "dist/a", findings, tuple(grown)),), "the lock of main", ("a note",), strict)


FINDINGS = st.lists(
    st.builds(
        finding,
        st.sampled_from(Verdict),
        st.text(max_size=40),
        st.sampled_from(["fail", "warn"]),
        st.sampled_from(["limit", "measurement", "baseline"]),
    ),
    max_size=30,
)
JUDGEMENTS = st.builds(
    lambda findings, name, strict, grown: judgement(*findings, name=name, strict=strict, grown=grown),
    FINDINGS,
    st.text(max_size=20),
    st.booleans(),
    st.lists(st.builds(Growth, st.just("tensor"), st.text(max_size=9), st.integers(0, 10**9), st.text(max_size=9))),
)


def unescaped(text):
    """As a runner reads a message."""
    return text.replace("%0D", "\r").replace("%0A", "\n").replace("%25", "%")


def properties(text):
    """As a runner reads properties: parted at commas, named before the first `=`, unescaped."""
    pairs = (part.partition("=") for part in text.split(","))
    return {name: unescaped(value.replace("%3A", ":").replace("%2C", ",")) for name, _, value in pairs}


def test_an_annotation_survives_the_runner(tmp_path):
    place = f"{tmp_path}/py project,1.toml:12:7"
    (line,) = github.commands(judgement(finding(text=EVIL, place=place)), tmp_path)
    read = COMMAND.fullmatch(line)
    assert read and read[1] == "error"
    found = properties(read["properties"])
    assert found == {"file": "py project,1.toml", "line": "12", "col": "7", "title": "gate: size_growth"}
    assert unescaped(read["message"]) == f"a: size_growth <= 0.5%: {EVIL}\nmeasure it"


@given(JUDGEMENTS)
def test_annotations_keep_githubs_limits(found):
    lines = github.commands(found, github.Path())
    kinds = [COMMAND.fullmatch(line)[1] for line in lines]
    assert kinds == sorted(kinds), "errors first"
    for kind, is_told in (("error", found.fails), ("warning", lambda one: not found.fails(one))):
        silent = (Verdict.PASS, Verdict.NEW)
        wanted = [one for one in found.findings if one.verdict not in silent and is_told(one)]
        assert kinds.count(kind) == min(10, len(wanted))
        if len(wanted) > 10:
            assert any(f"::{len(wanted) - 9} more" in line for line in lines)
        else:
            assert not any(line.startswith(f"::{kind}") and " more: see" in line for line in lines)


def test_a_fault_is_an_annotation_too(tmp_path):
    found = COMMAND.fullmatch(github.error("no %", f"{tmp_path}/a.toml:3:1", "mend\nit", tmp_path))
    assert properties(found["properties"]) == {"file": "a.toml", "line": "3", "col": "1", "title": "gate"}
    assert unescaped(found["message"]) == "no %\nmend\nit"


@pytest.mark.slow
@given(JUDGEMENTS)
def test_junit_holds_its_schema_and_counts(found):
    text = junit.render(found)
    JUNIT.validate(text)
    (suite,) = JUNIT.to_dict(text)["testsuite"]
    cases = suite.get("testcase", [])
    counted = {kind: sum(kind in case for case in cases) for kind in ("failure", "error", "skipped")}
    assert (suite["@tests"], suite["@failures"]) == (len(found.findings), counted["failure"])
    assert (suite["@errors"], suite["@skipped"]) == (counted["error"], counted["skipped"])
    assert counted["failure"] + counted["error"] == sum(map(found.fails, found.findings))
    assert bool(counted["failure"] or counted["error"]) == (found.exit_code != 0)


def test_junits_schema_can_fail():
    text = junit.render(judgement(finding()))
    for wrong in (
        text.replace(' tests="1"', ""),
        text.replace("<failure", "<skipped/><failure"),
        text.replace("classname", "class"),
    ):
        assert not JUNIT.is_valid(wrong)


@given(JUDGEMENTS, st.integers(0, 4000))
def test_markdown_is_cut_at_a_line_and_no_tag_gets_through(found, limit):
    whole = markdown.render(found)
    assert whole.startswith("<!-- bertshrink:gate -->\n")
    assert len(markdown.render(found, limit).encode()) <= max(limit, len(markdown.render(found, 0).encode()))
    assert markdown.render(found, len(whole.encode())) == whole
    tags = set(re.findall(r"</?\w[^>]*>", whole))
    assert tags <= {"<details>", "<summary>", "</summary>", "</details>"}
    table = [line for line in whole.splitlines() if line.startswith("| ")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in table} <= {5}


@given(st.text(max_size=40))
def test_a_comments_mark_is_one_comment_of_html_and_one_line(name):
    """Whatever a job is called, no two of them have one mark, and none breaks out of it."""
    found = markdown.mark(replace(judgement(), id=name))
    inner = found.removeprefix("<!-- bertshrink:gate").removesuffix("-->")
    assert not re.search(r"--|[<>\r\n]", inner)
    assert unquote(inner[1:-1]) == name
    assert found != markdown.mark(replace(judgement(), id=f"{name}x"))


@pytest.mark.slow
def test_a_comment_and_a_summary_fit(tmp_path, monkeypatch):
    many = judgement(*[finding(text="x" * 300) for _ in range(5000)])
    comment = markdown.render(many, markdown.COMMENT_BYTES)
    assert len(comment) <= 65_536
    assert comment.endswith("the rest is in the log*\n")
    summary = markdown.render(many, github.SUMMARY_BYTES)
    assert len(summary.encode()) <= 1_048_576


@given(JUDGEMENTS)
def test_json_is_one_document_with_every_finding(found):
    data = json.loads(json_openmetrics.to_json(found))
    assert data["exit_code"] == found.exit_code
    assert len(data["artifacts"][0]["rules"]) == len(found.findings)


@pytest.mark.slow
@given(JUDGEMENTS)
def test_the_terminal_prints_no_control_character(found):
    console = Console(width=100, force_terminal=False, color_system=None)
    with console.capture() as captured:
        console.print(terminal.render(found))
    assert all(c.isprintable() or c == "\n" for c in captured.get())


def test_exit_codes_are_those_of_the_worst_cause():
    def code(*causes, **more):
        return judgement(*(finding(cause=cause) for cause in causes), **more).exit_code

    assert [code(), code("limit"), code("baseline"), code("measurement")] == [0, 1, 4, 3]
    assert [code("measurement", "baseline"), code("baseline", "limit")] == [4, 1]
    is_open = finding(Verdict.INCONCLUSIVE)
    assert [judgement(is_open).exit_code, judgement(is_open, strict=True).exit_code] == [0, 1]
    warned = finding(Verdict.INCONCLUSIVE, severity="warn")
    assert judgement(warned, finding(severity="warn"), strict=True).exit_code == 0


@pytest.fixture
def repo(tmp_path, monkeypatch):
    artifact(tmp_path / "dist" / "model.onnx")
    text = '[gate]\nartifact = "dist/model.onnx"\nsize = "<= 1 kB"\nnodes = { limit = "<= 1", severity = "warn" }\n'
    (tmp_path / "bertshrink.toml").write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.subprocess
def test_a_github_step_sees_annotations_and_its_summary(repo, monkeypatch, capsys):
    summary = repo / "summary.md"
    summary.write_text("# before\n")
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_WORKSPACE", str(repo))
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    assert run(["gate", "--json"]) == 1
    printed = capsys.readouterr()
    assert json.loads(printed.out)["exit_code"] == 1
    first, second = printed.err.splitlines()
    assert first.startswith("::error file=bertshrink.toml,line=3,col=1,title=gate%3A size::dist/model.onnx: size")
    assert second.startswith("::warning file=bertshrink.toml,line=4,col=1,title=gate%3A nodes::")
    assert summary.read_text().startswith("# before\n<!-- bertshrink:gate bertshrink.toml -->\n")
    summary.write_text("x" * github.SUMMARY_BYTES)
    assert run(["gate", "-q"]) == 1
    assert summary.stat().st_size <= 1_048_576
    (repo / "dist/model.onnx").unlink()
    capsys.readouterr()
    assert run(["gate"]) == 2
    assert capsys.readouterr().err.startswith(
        "::error file=bertshrink.toml,line=2,col=1,title=gate::there is no artifact"
    )


@pytest.mark.subprocess
def test_files_for_other_systems(repo, capsys):
    assert run(["gate", "--markdown", "--junit", "j.xml", "--comment-file", "c.md", "--openmetrics", "m.txt"]) == 1
    JUNIT.validate((repo / "j.xml").read_text())
    assert capsys.readouterr().out == (repo / "c.md").read_text()
    lines = (repo / "m.txt").read_text().splitlines()
    assert lines[-1] == "# EOF"
    number = re.compile(r'(bertshrink_\w+)\{artifact="dist/model.onnx"\} \d+')
    names = [number.fullmatch(line)[1] for line in lines if not line.startswith("#")]
    assert {"bertshrink_size_bytes", "bertshrink_nodes"} <= set(names)
    assert [line.split()[2] for line in lines if line.startswith("# TYPE")] == names
    assert run(["gate", "--junit", str(repo / "no" / "j.xml")]) == 7
