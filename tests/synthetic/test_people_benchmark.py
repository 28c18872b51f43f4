import pytest

pytest.importorskip("skia")
people = pytest.importorskip("people")  # benchmarks/people.py


def test_the_table_has_a_row_for_each_look_and_size():
    rows = people.table(people=1, frames=1).splitlines()[2:]
    assert len(rows) == 2 * len(people.SIZES)
    assert all(float(row.split("|")[3]) > 0 for row in rows)


def test_the_sheet_is_a_picture():
    sheet = people.sheet(columns=2, size=32)
    assert sheet.shape == (8 * 32, 2 * 32, 3)
    assert sheet.std() > 10
