"""A judgement as JUnit XML: a test suite for each artifact, a test case for each rule.

    a limit broken           <failure>
    what could not be judged <error>
    inconclusive, new, or a warning  <skipped>: told, not counted as failed; with `--strict` inconclusive is a failure

The order of elements and the counts are those of the schema that Jenkins publishes for xUnit; characters that XML does
not allow are replaced.
"""

from __future__ import annotations

import re
from xml.etree import ElementTree as Tree

from bertshrink.gates.judge import Finding, Verdict
from bertshrink.gates.show.wording import advice, growth_line, sentence
from bertshrink.gates.verdict import Judged, Judgement

_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def render(judgement: Judgement) -> str:
    """Write the XML document."""
    root = Tree.Element("testsuites", name="bertshrink gate")
    totals = {"tests": 0, "failures": 0, "errors": 0, "skipped": 0}
    for judged in judgement.judged:
        counts = dict.fromkeys(totals, 0)
        suite = Tree.SubElement(root, "testsuite", name=_clean(judged.name))
        for finding in judged.findings:
            counts["tests"] += 1
            if kind := _case(suite, judgement, judged, finding):
                counts[kind] += 1
        for name, count in counts.items():
            suite.set(name, str(count))
            totals[name] += count
        suite.set("time", "0")
        if judged.grown:
            Tree.SubElement(suite, "system-out").text = _clean("\n".join(growth_line(one) for one in judged.grown))
    for name, count in totals.items():
        root.set(name, str(count))
    Tree.indent(root, " ")
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + Tree.tostring(root, encoding="unicode") + "\n"


def _case(suite: Tree.Element, judgement: Judgement, judged: Judged, finding: Finding) -> str | None:
    """Append a test case; returns what it counts as."""
    since = f" since {finding.rule.since}" if finding.rule.since else ""
    name = _clean(f"{finding.name}{since} {finding.rule.limit.text}")
    case = Tree.SubElement(suite, "testcase", classname=_clean(f"gate.{judged.name}"), name=name, time="0")
    if finding.verdict is Verdict.PASS:
        return None
    text = _clean("\n".join([sentence(judged, finding), *advice(judgement, finding)]))
    if not judgement.fails(finding):
        Tree.SubElement(case, "skipped", message=_clean(finding.text))
        return "skipped"
    kind = "failure" if finding.cause in ("limit", "gone", None) else "error"
    told = finding.cause or "inconclusive"
    Tree.SubElement(case, kind, message=_clean(finding.text), type=told).text = text
    return "failures" if kind == "failure" else "errors"


def _clean(text: str) -> str:
    return _FORBIDDEN.sub("\ufffd", text)
