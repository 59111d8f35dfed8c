"""The sample in Slicer's Sample Data module: simulated on this computer, no internet."""

from pathlib import Path

import slicer
from slicer.i18n import tr as _

ICONS = Path(__file__).resolve().parents[2] / "Resources" / "Icons"


def register() -> None:
    """Add the sample to the Sample Data module."""
    import SampleData

    category = "CrossModa"  # a key; only the title is translated
    if hasattr(SampleData.SampleDataLogic, "registerCustomSampleDataCategory"):  # Slicer 5.11 and newer
        SampleData.SampleDataLogic.registerCustomSampleDataCategory(category, title=_("CrossModa"))
    SampleData.SampleDataLogic.registerCustomSampleDataSource(
        category=category,
        sampleName="CrossModaPhantom",
        thumbnailFileName=str(ICONS / "CrossModaPhantom.png"),
        customDownloader=load,
    )


def load(_source=None):
    """Open the panel and press its button: the panel shows the progress and can cancel."""
    slicer.util.selectModule("CrossModaSeg")
    slicer.util.getModuleWidget("CrossModaSeg").panel.cases.on_sample()
