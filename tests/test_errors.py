"""What, where, hint; each kind with an exit code of its own."""

import pickle

import pytest

from bertshrink import errors
from bertshrink.errors import BertshrinkError, UserError, UserErrors

KINDS = [kind for kind in BertshrinkError.__subclasses__() if kind.__module__ == errors.__name__]


def test_the_three_parts_in_order():
    error = UserError("`x` is wrong", where="a.yaml:1:2", hint="write `y`")
    assert str(error) == "`x` is wrong\n  --> a.yaml:1:2\nhint: write `y`"
    assert str(UserError("alone")) == "alone"


@pytest.mark.parametrize("kind", [*KINDS, BertshrinkError])
def test_errors_travel_between_processes_whole(kind):
    again = pickle.loads(pickle.dumps(kind("what", where="where", hint="hint")))
    assert type(again) is kind
    assert (again.what, again.where, again.hint) == ("what", "where", "hint")


def test_the_setting_travels_too():
    again = pickle.loads(pickle.dumps(UserError("`layers` is 9", hint="give 1 to 4", setting="layers")))
    assert (again.what, again.setting, again.hint) == ("`layers` is 9", "layers", "give 1 to 4")


def test_several_faults_travel_together():
    again = pickle.loads(pickle.dumps(UserErrors([UserError("a", where="1"), UserError("b", hint="2")])))
    assert [(f.what, f.where, f.hint) for f in again.faults] == [("a", "1", None), ("b", None, "2")]
    assert str(again) == "a\n  --> 1\nb\nhint: 2"
    assert again.exit_code == UserError.exit_code


def test_each_kind_has_an_exit_code_of_its_own_as_documented():
    codes = {kind.__name__: kind.exit_code for kind in KINDS}
    assert codes == {
        "CheckFailed": 1,
        "UserError": 2,
        "MeasurementError": 3,
        "BaselineError": 4,
        "UnsafeModel": 5,
        "MissingDependency": 6,
        "OutputError": 7,
        "Interrupted": 130,
        "Terminated": 143,
    }
    assert BertshrinkError.exit_code == 70
