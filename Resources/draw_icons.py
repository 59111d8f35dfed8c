"""Draw the icons of the extension and of its panel: a cochlea's spiral and a schwannoma beside it.

``QT_QPA_PLATFORM=offscreen python Resources/draw_icons.py`` (needs PySide6) writes the PNG files that are committed.
"""

import math
import os
from pathlib import Path

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
from PySide6 import QtCore, QtGui

ROOT = Path(__file__).resolve().parents[1]
NIGHT, TUMOR, COCHLEA = "#16202e", "#e6503c", "#58bdf5"


def spiral(turns: float, outer: float, center: QtCore.QPointF) -> QtGui.QPainterPath:
    """Return a spiral that ends in a straight basal turn, in units of the icon's width."""
    path = QtGui.QPainterPath()
    steps = 120
    for step in range(steps + 1):
        share = step / steps
        radius, angle = outer * (0.16 + 0.84 * share), 2 * math.pi * turns * share + 0.75 * math.pi
        point = center + QtCore.QPointF(radius * math.cos(angle), radius * math.sin(angle))
        path.moveTo(point) if step == 0 else path.lineTo(point)
    return path


def icon(pixels: int) -> QtGui.QImage:
    """Draw the icon; small sizes get fewer turns and thicker lines."""
    image = QtGui.QImage(pixels, pixels, QtGui.QImage.Format_ARGB32)
    image.fill(QtCore.Qt.transparent)
    painter = QtGui.QPainter(image)
    painter.setRenderHint(QtGui.QPainter.Antialiasing)
    painter.scale(pixels, pixels)
    small = pixels < 32

    painter.setPen(QtCore.Qt.NoPen)
    painter.setBrush(QtGui.QColor(NIGHT))
    painter.drawRoundedRect(QtCore.QRectF(0, 0, 1, 1), 0.2, 0.2)

    tumor = QtGui.QPainterPath(QtCore.QPointF(0.52, 0.60))  # a cone in the canal, a ball in the cistern
    tumor.cubicTo(0.62, 0.52, 0.80, 0.48, 0.89, 0.60)
    tumor.cubicTo(0.99, 0.76, 0.88, 0.93, 0.74, 0.92)
    tumor.cubicTo(0.60, 0.91, 0.56, 0.78, 0.52, 0.60)
    painter.setBrush(QtGui.QColor(TUMOR))
    painter.drawPath(tumor)

    pen = QtGui.QPen(QtGui.QColor(COCHLEA), 0.12 if small else 0.085)
    pen.setCapStyle(QtCore.Qt.RoundCap)
    painter.setPen(pen)
    painter.setBrush(QtCore.Qt.NoBrush)
    painter.drawPath(spiral(1.35 if small else 1.6, 0.29, QtCore.QPointF(0.38, 0.38)))
    painter.end()
    return image


if __name__ == "__main__":
    application = QtGui.QGuiApplication([])
    for pixels, path in (
        (128, ROOT / "Resources/Icons/CrossModa.png"),
        (128, ROOT / "CrossModaSeg/Resources/Icons/CrossModaSeg.png"),
        (16, ROOT / "Resources/Icons/CrossModa-16.png"),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        icon(pixels).save(str(path))
