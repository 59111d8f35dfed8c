"""Volumes over time as a Slicer plot: the tumor of each ear with its interval, and the criterion of growth."""

import slicer
from slicer.i18n import tr as _

from CrossModaSegLib.scene import nodes, tables

ROLE = "growth plot"
#: Colors of the ears.
_COLORS = {"left": (0.86, 0.36, 0.29), "right": (0.2, 0.45, 0.75)}
_OTHER_COLOR = (0.4, 0.4, 0.4)
#: The lines of an ear: column, and whether it is dashed.
_LINES = {"volume": False, "low": True, "high": True, "criterion": True}


def make(scan, plot: dict):
    """Return the chart of a comparison.

    Args:
        scan: the scan to which it belongs.
        plot: ``title`` of the time, ``times``, and for each ear in ``ears`` lists of ``volume``, ``low``, ``high`` and
            ``criterion`` (mL; None: unknown).

    """
    chart = _new("vtkMRMLPlotChartNode", _("{scan} volumes over time"), scan)
    columns, values = [plot["title"]], [plot["times"]]
    for side, ear in plot["ears"].items():
        for line in _LINES:
            columns.append(f"{side} {line} [mL]")
            values.append(ear[line])
    table = tables.fill(_new("vtkMRMLTableNode", _("{scan} volumes"), scan), columns, list(zip(*values, strict=True)))
    chart.SetNodeReferenceID(ROLE, table.GetID())
    for side in plot["ears"]:
        for line, is_dashed in _LINES.items():
            series = _new("vtkMRMLPlotSeriesNode", f"{side} {line}", scan)
            series.SetAndObserveTableNodeID(table.GetID())
            series.SetXColumnName(plot["title"])
            series.SetYColumnName(f"{side} {line} [mL]")
            series.SetPlotType(series.PlotTypeScatter)
            series.SetMarkerStyle(series.MarkerStyleNone if is_dashed else series.MarkerStyleCircle)
            series.SetLineStyle(series.LineStyleDash if is_dashed else series.LineStyleSolid)
            series.SetColor(*((0.55, 0.55, 0.55) if line == "criterion" else _COLORS.get(side, _OTHER_COLOR)))
            chart.AddAndObservePlotSeriesNodeID(series.GetID())
    chart.SetTitle(scan.GetName())
    chart.SetXAxisTitle(plot["title"])
    chart.SetYAxisTitle(_("volume [mL]"))
    return chart


def remove(chart) -> None:
    """Remove the series and the table of a chart."""
    if chart is None:
        return
    count = chart.GetNumberOfPlotSeriesNodes()
    for node in [*(chart.GetNthPlotSeriesNode(number) for number in range(count)), chart.GetNodeReference(ROLE)]:
        if node is not None:
            slicer.mrmlScene.RemoveNode(node)


def show(chart) -> None:
    """Show a chart in a layout with a plot."""
    if chart is not None:
        slicer.modules.plots.logic().ShowChartInLayout(chart)


def _new(kind: str, name: str, scan):
    unique = slicer.mrmlScene.GenerateUniqueName(name.format(scan=scan.GetName()))
    node = slicer.mrmlScene.AddNewNodeByClass(kind, unique)
    node.SetAttribute(nodes.ROLE, ROLE)
    return node
