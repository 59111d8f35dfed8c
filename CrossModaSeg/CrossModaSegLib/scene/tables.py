"""Tables of measures."""

import vtk
from slicer.i18n import tr as _


def fill(table, columns: list[str], rows: list[list]):
    """Return a table node with these rows instead of its own; numbers are numeric, unknown ones not a number."""
    table.RemoveAllColumns()
    for title, values in zip(columns, zip(*rows, strict=True), strict=True):
        is_text = any(isinstance(value, str) for value in values)
        column = vtk.vtkStringArray() if is_text else vtk.vtkDoubleArray()
        column.SetName(title)
        for value in values:
            column.InsertNextValue(("" if is_text else float("nan")) if value is None else value)
        table.AddColumn(column)
    return table


def turned(table) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """Return the texts of a table for a narrow panel: titles of its rows (first two columns), and a row for each other.

    Columns that nothing has are left out.
    """
    content = table.GetTable()
    columns = [content.GetColumn(number) for number in range(content.GetNumberOfColumns())]
    count = content.GetNumberOfRows()
    titles = ["\n".join(filter(None, (text(column, row) for column in columns[:2]))) for row in range(count)]
    values = [(column.GetName(), [text(column, row) for row in range(count)]) for column in columns[2:]]
    return titles, [(name, texts) for name, texts in values if any(texts)]


def with_intervals(rows: list[tuple[str, list[str]]]) -> list[tuple[str, list[str]]]:
    """Return rows in which the lower and upper limit of a value ("change, low", "change, high") are one row."""
    merged: list[tuple[str, list[str]]] = []
    for name, texts in rows:
        if ", high" in name:
            merged[-1] = ("    " + _("interval"), [_between(*pair) for pair in zip(merged[-1][1], texts, strict=True)])
        else:
            merged.append((name, texts))
    return [row for row in merged if any(row[1])]


def _between(low: str, high: str) -> str:
    """Return an interval, with whole numbers where they are large; nothing where the limits are the same."""
    limits = [f"{float(text):.0f}" if len(text) > len("99.9") else text for text in (low, high) if text]
    return f"{limits[0]}…{limits[1]}" if len(set(limits)) == 2 else ""


def text(column, row: int) -> str:
    """Return a value of a column as text: with a decimal, whole numbers of slices without one."""
    value = column.GetValue(row)
    if isinstance(value, str):
        return value
    return "" if value != value else f"{value:.0f}" if column.GetName().endswith("slice") else f"{value:.1f}"
