"""Faults with their places."""

import pytest

from bertshrink.config.checker import Checker, LocatedConfig
from bertshrink.errors import MissingDependency, UserError, UserErrors


def checker():
    places = {("stages",): "a.yaml:2:1", ("stages", 0): "a.yaml:3:3", ("stages", 0, "layers"): "a.yaml:3:12"}
    return Checker(LocatedConfig("a.yaml", {}, places))


def test_a_fault_stands_at_its_value_or_at_the_nearest_thing_around_it():
    check = checker()
    assert check.place == "a.yaml"
    stage = check.at("stages", 0)
    assert (stage.at("layers").place, stage.at("epochs").place) == ("a.yaml:3:12", "a.yaml:3:3")
    assert check.at("stages", 1).place == "a.yaml:2:1"


def test_all_faults_are_raised_at_once_whichever_value_they_are_of():
    check = checker()
    check.raise_faults()
    check.at("stages", 0, "layers").error("`layers` is 9", "give 1 to 4")
    with pytest.raises(UserError) as one:
        check.raise_faults()
    assert (one.value.what, one.value.where, one.value.hint) == ("`layers` is 9", "a.yaml:3:12", "give 1 to 4")
    check.at("stages").add(UserError("another", where="--stages"))
    check.at("stages").add(UserError("a third"))
    with pytest.raises(UserErrors) as several:
        check.raise_faults()
    assert [fault.where for fault in several.value.faults] == ["a.yaml:3:12", "--stages", "a.yaml:2:1"]


def test_what_is_no_mistake_in_the_request_comes_first():
    check = checker()
    check.error("`layers` is 9")
    check.add(MissingDependency("no engine"))
    with pytest.raises(MissingDependency, match="no engine"):
        check.raise_faults()
