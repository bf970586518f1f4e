"""Quantities as people write them, and back."""

import math

import pytest

from bertshrink import units


@pytest.mark.parametrize(
    ("text", "value", "unit"),
    [
        ("70 MB", 70e6, "B"),
        ("70MiB", 70 * 1024**2, "B"),
        ("1.5 GB", 1.5e9, "B"),
        ("12 ms", 0.012, "s"),
        ("3 min", 180.0, "s"),
        ("7 µs", 7e-6, "s"),
        ("0.5x", 0.5, "x"),
        ("98%", 0.98, "fraction"),
        ("0.5 pt", 0.005, "point"),
        ("-1 pt", -0.01, "point"),
        ("22.7 M", 22.7e6, "count"),
        ("  42 ", 42.0, "count"),
        ("1e3 B", 1000.0, "B"),
        ("21.5 GB/s", 21.5e9, "B/s"),
        ("92.6 Gop/s", 92.6e9, "op/s"),
    ],
)
def test_parse(text, value, unit):
    found, of = units.parse(text)
    assert (found, of) == (pytest.approx(value), unit)


@pytest.mark.parametrize(
    "text",
    # the last: digits of another script, which Python's `float` would take
    ["", "MB", "ten MB", "10 parsecs", "1e999 B", "nan s", "1 MB 2", "0x10 B", "\u0662\u0665 MB", "\uff12\uff15 MB"],
)
def test_what_is_no_quantity_is_refused(text):
    with pytest.raises(ValueError, match=r"is not a quantity|is not a unit|is not finite"):
        units.parse(text)


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (90.9e6, "B", "90.9 MB"),
        (0, "B", "0 B"),
        (999, "B", "999 B"),
        (0.01234, "s", "12.3 ms"),
        (90, "s", "1.50 min"),
        (0.504, "x", "0.50x"),
        (0.98, "fraction", "98.00%"),
        (-0.005, "point", "-0.50 pt"),
        (22_713_216, "count", "22.7 M"),
        (12, "count", "12"),
        (0.7321, "", "0.7321"),
        (3.0, "furlong", "3.00 furlong"),
        (21.5e9, "B/s", "21.5 GB/s"),
        (798e12, "op/s", "798 Top/s"),
        (12.0, "op/s", "12.0 op/s"),
    ],
)
def test_format(value, unit, text):
    assert units.format(value, unit) == text


@pytest.mark.parametrize("unit", ["B", "s", "x", "fraction", "point", "count", "", "furlong"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_written_as_it_is(value, unit):
    assert units.format(value, unit) == str(value)


@pytest.mark.parametrize("unit", ["B", "s", "count", "x", "fraction", "point"])
@pytest.mark.parametrize("value", [0.5, 1, 12, 123, 1234, 0.0123, 45.6e6, -7.0])
def test_what_was_written_reads_back(value, unit):
    text = units.format(value, unit, digits=6)
    assert units.parse(text) == (pytest.approx(value, rel=1e-4, abs=1e-5), unit)


def test_shares_and_sizes_that_limits_are_written_as():
    assert (units.share("98%"), units.share("0.5%"), units.share("0.25")) == (0.98, pytest.approx(0.005), 0.25)
    assert units.size("70 MB") == 70e6
    for text in ("5 MB", "120%", "-1%"):
        with pytest.raises(ValueError, match="not a share"):
            units.share(text)
    for text in ("5%", "0 MB"):
        with pytest.raises(ValueError, match="not a size"):
            units.size(text)
