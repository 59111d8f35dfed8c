"""With a Slicer source tree at hand ($SLICER_SOURCE), its own Python files instead of the bed's small ones."""

import importlib
import os
import sys
from pathlib import Path

import slicer

MODULES = ("i18n", "cli", "ScriptedLoadableModule", "parameterNodeWrapper")
#: Classes that Slicer's parameterNodeWrapper compares widgets with; none of them is in the panel.
_UNUSED_CTK = (
    *("ctkCheckablePushButton", "ctkColorPickerButton", "ctkDirectoryButton", "ctkDoubleRangeSlider"),
    *("ctkDoubleSlider", "ctkRangeWidget", "ctkSpinBox"),
)
_UNUSED_SLICER = (
    *("qMRMLCheckableNodeComboBox", "qMRMLRangeWidget", "qMRMLSliderWidget", "qMRMLSpinBox"),
    *("qMRMLSubjectHierarchyComboBox", "qMRMLSubjectHierarchyTreeView"),
)


def folder() -> Path | None:
    """Return Base/Python/slicer of the source tree, if there is one."""
    source = os.environ.get("SLICER_SOURCE")
    return Path(source) / "Base/Python/slicer" if source else None


def install() -> None:
    """Replace the bed's modules by Slicer's own."""
    import ctk

    for module, names in ((ctk, _UNUSED_CTK), (slicer, _UNUSED_SLICER)):
        for name in names:
            if not hasattr(module, name):
                setattr(module, name, type(name, (), {}))
    slicer.__path__.insert(0, str(folder()))
    for name in MODULES:
        sys.modules.pop(f"slicer.{name}", None)
    for name in MODULES:
        setattr(slicer, name, importlib.import_module(f"slicer.{name}"))
