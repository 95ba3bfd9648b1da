"""Plain text tables for terminals and logs."""

from collections.abc import Sequence


def format_table(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table with aligned columns; numbers stand on the right, floats with three decimals."""
    cells = [[_text(value) for value in row] for row in rows]
    widths = [max(len(line[place]) for line in [list(headers), *cells]) for place in range(len(headers))]
    right = [all(isinstance(row[place], int | float) for row in rows) for place in range(len(headers))]

    def line(values: Sequence[str]) -> str:
        parts = [v.rjust(w) if r else v.ljust(w) for v, w, r in zip(values, widths, right, strict=True)]
        return "  ".join(parts).rstrip()

    rule = "  ".join("-" * width for width in widths)
    return "\n".join([line(headers), rule, *(line(row) for row in cells)])


def _text(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)
