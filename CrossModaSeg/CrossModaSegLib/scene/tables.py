"""Tables of measures."""

import vtk


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


def text(column, row: int) -> str:
    """Return a value of a column as text: with a decimal, whole numbers of slices without one."""
    value = column.GetValue(row)
    if isinstance(value, str):
        return value
    return "" if value != value else f"{value:.0f}" if column.GetName().endswith("slice") else f"{value:.1f}"
