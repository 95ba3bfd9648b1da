"""One table, three forms."""

from engine.results.table import Table

TABLE = Table(["name", "share", "videos"], [["a|b", 0.12345, 3], ["c", 10.0, 12]])


def test_text_is_aligned_and_numbers_stand_on_the_right():
    assert TABLE.text() == (
        "name   share  videos\n"
        "----  ------  ------\n"
        "a|b    0.123       3\n"
        "c     10.000      12"
    )  # fmt: skip


def test_markdown_keeps_a_cell_in_its_column():
    assert TABLE.markdown() == "| name | share | videos |\n|---|---|---|\n| a\\|b | 0.123 | 3 |\n| c | 10.000 | 12 |"


def test_a_title_stands_over_text_and_markdown_and_what_is_missing_is_a_dash():
    table = Table(["x", "y"], [[None, "z"]], "Title")
    assert table.text() == "Title\nx  y\n-  -\n-  z"
    assert table.markdown() == "**Title**\n\n| x | y |\n|---|---|\n| - | z |"


def test_csv_has_floats_in_full_or_as_asked(tmp_path):
    table = Table(["a,b", "n"], [[1 / 3, None], ["ü", 2]], "not in it")
    table.write_csv(tmp_path / "full.csv")
    assert (tmp_path / "full.csv").read_bytes().decode() == f'"a,b",n\r\n{1 / 3!r},\r\nü,2\r\n'
    table.write_csv(tmp_path / "short.csv", decimals=2)
    assert (tmp_path / "short.csv").read_text().splitlines()[1] == "0.33,"


def test_a_table_without_rows_is_its_header():
    assert Table(["a", "b"], []).text() == "a  b\n-  -"
