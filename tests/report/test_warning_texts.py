"""What warnings say."""

from typing import get_args

import pytest
from pydantic import ValidationError

from bertshrink.report.measurement import MeasurementWarning, WarningKind
from bertshrink.report.table.warning_texts import brief, detail, warning_text

SAID = {
    "not_warmed_up": ((1.84,), "8x16: not warmed up, the last warm-up iterations still changed by +184 %"),
    "outliers": ((2, 15), "8x16: 2 of 15 samples are outliers; all are kept"),
    "drift": ((-0.056,), "8x16: drift, the second half of the rounds differs from the first by -6 %"),
    "outputs_differ": ((), "8x16: the outputs differ between processes"),
    "means_only": ((), "8x16: the runner reports only the mean of each process"),
    "others_busy": ((1.46,), "other processes kept 1.5 cores busy"),
    "stolen": ((0.034,), "the hypervisor gave 3 % of the CPU time to other virtual machines"),
    "throttled": ((8,), "the processor was slowed down 8 times for heat or current"),
    "gpu_held_back": ((), "the GPU's clocks were held back: software power cap, thermal slowdown"),
    "rounds_missing": ((3, 9, 65.5), "3 of 9 rounds fitted into 65.5 s"),
    "busy_at_start": ((3.71, 2), "the machine was busy at the start: load average 3.7 on 2 cores"),
    "memory_since_start": (
        (),
        "memory peaks are since process start: this system cannot reset them between phases",
    ),
}


@pytest.mark.parametrize("kind", get_args(WarningKind))
def test_a_warning_in_words(kind):
    values, text = SAID[kind]
    case = "8x16" if text.startswith("8x16: ") else None
    names = ("software power cap", "thermal slowdown") if kind == "gpu_held_back" else ()
    warning = MeasurementWarning(kind=kind, case=case, values=values, names=names)
    assert warning_text(warning) == text
    assert MeasurementWarning.model_validate_json(warning.model_dump_json()) == warning


@pytest.mark.parametrize("values", [(), (2,), (2, 15, 1), (2, float("nan"))])
def test_a_warning_with_other_values_than_its_kind_is_refused(values):
    with pytest.raises(ValidationError):
        MeasurementWarning(kind="outliers", case="8x16", values=values)


def test_where_cases_are_summed_up_the_kind_stands_before_its_figure():
    outliers = MeasurementWarning(kind="outliers", case="8x16", values=(2, 15))
    assert (brief(outliers), detail(outliers)) == ("outliers", "2 of 15 samples; all are kept")
    assert detail(outliers, "up to 2 of 15") == "up to 2 of 15 samples; all are kept"
    differ = MeasurementWarning(kind="outputs_differ", case="8x16", is_grave=True)
    assert (brief(differ), detail(differ)) == ("the outputs differ between processes", "")
