"""Tables are read as they are written: every cell comes back, or the file is refused by name."""

from bertshrink.model.tables import Table

# Where a row stands


def test_a_row_is_named_by_its_line_or_its_number():
    columns = {"text": ["a", "b", "c"]}
    assert Table("x.csv", columns, lines=[2, 3, 7]).where(2) == "x.csv:7"
    assert Table("x.parquet", columns).where(0) == "x.parquet, row 1"
    several = Table("x", columns, parts=(("x-0.parquet", 2), ("x-1.parquet", 1)))
    assert [several.where(row) for row in range(3)] == [
        "x-0.parquet, row 1",
        "x-0.parquet, row 2",
        "x-1.parquet, row 1",
    ]
    of_lines = Table("x", columns, lines=[2, 3, 2], parts=(("x.1.csv", 2), ("x.2.csv", 1)))
    assert of_lines.where(2) == "x.2.csv:2"
