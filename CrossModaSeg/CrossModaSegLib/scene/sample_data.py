"""The sample in Slicer's Sample Data module: simulated on this computer, no internet."""

from pathlib import Path

import slicer
from slicer.i18n import tr as _

#: A key; only the title is translated.
CATEGORY = "CrossModa"
ICONS = Path(__file__).resolve().parents[2] / "Resources" / "Icons"


def register() -> None:
    """Add the sample to the Sample Data module."""
    import SampleData

    logic = SampleData.SampleDataLogic
    if hasattr(logic, "registerCustomSampleDataCategory"):  # Slicer 5.11 and newer
        logic.registerCustomSampleDataCategory(CATEGORY, title=_("CrossModa"))
    for category in (CATEGORY, logic().builtInCategoryName):
        logic.registerCustomSampleDataSource(
            category=category,
            sampleName="CrossModaPhantom",
            uris=[],  # nothing is downloaded; without lists of files Slicer refuses the sample
            fileNames=[],
            thumbnailFileName=str(ICONS / "CrossModaPhantom.png"),
            customDownloader=load,
        )


def load(_source=None):
    """Open the panel and press its button: the panel shows the progress and can cancel."""
    slicer.util.selectModule("CrossModaSeg")
    panel = slicer.util.getModuleWidget("CrossModaSeg").panel
    panel.show_tab(panel.cases)
    panel.cases.on_sample()
