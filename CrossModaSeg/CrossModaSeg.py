"""CrossModa's panel in 3D Slicer; the sections are in CrossModaSegLib."""

import sys

import slicer
from CrossModaSegLib.Logic import CrossModaSegLogic
from CrossModaSegLib.scene import sample_data
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)

__all__ = ["CrossModaSeg", "CrossModaSegLogic", "CrossModaSegTest", "CrossModaSegWidget"]


class CrossModaSeg(ScriptedLoadableModule):
    """What Slicer shows of the module before it is opened."""

    def __init__(self, parent):
        """Describe the module; register the sample data when the application is up."""
        super().__init__(parent)
        parent.title = _("CrossModa")
        parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        parent.dependencies = []
        parent.contributors = ["The CrossModa developers"]
        parent.helpText = _(
            "Segments and measures the vestibular schwannoma and the cochlea on T2 MR. <b>Measure</b>: select a scan, "
            "press Apply, check the outline. <b>Review</b>: correct the labels of a cohort. <b>Atlases &amp; "
            "training</b>: labels from contrast-enhanced T1 scans, and your own models; “Load sample data” gives a "
            "first scan. Research software, not a medical device. See the "
            "<a href='https://github.com/crossmoda/SlicerCrossModa/blob/main/docs/clinician.md'>user guide</a>."
        )
        parent.acknowledgementText = _(
            "The method follows C. N. Kruse, L. Hansen and M. P. Heinrich, “Learning on MIND features and noisy labels "
            "from image registration”, <a href='https://crossmoda.grand-challenge.org/'>crossMoDA 2021</a>. Please "
            "cite it and what it is built on: registration with deeds, Heinrich et al., "
            "<a href='https://doi.org/10.1109/TMI.2013.2246577'>IEEE TMI 32, 2013</a>; MIND-SSC, Heinrich et al., "
            "<a href='https://doi.org/10.1007/978-3-642-40811-3_24'>MICCAI 2013</a>; STAPLE, Warfield, Zou and Wells, "
            "<a href='https://doi.org/10.1109/TMI.2004.828354'>IEEE TMI 23, 2004</a>; the challenge, Dorent et al., "
            "<a href='https://doi.org/10.1016/j.media.2022.102628'>Medical Image Analysis 83, 2023</a>."
        )
        slicer.app.connect("startupCompleted()", sample_data.register)


class CrossModaSegWidget(ScriptedLoadableModuleWidget):
    """The panel."""

    def setup(self):
        """Build the sections."""
        super().setup()
        from CrossModaSegLib.Widget import Panel

        self.logic = CrossModaSegLogic()
        self.panel = Panel(self.layout, self.logic)
        self.panel.open()

    def enter(self):
        """Show the scene's state; look for a graphics card at the first time."""
        if self.panel.parameters is None:
            self.panel.open()
        self.panel.setup.find_device()
        self.panel.enter()

    def exit(self):
        """Give the keys back; long work goes on while another module is open."""
        self.panel.exit()

    def onReload(self):
        """Reload the module with all of its library."""
        for name in [name for name in sys.modules if name.partition(".")[0] == "CrossModaSegLib"]:
            del sys.modules[name]
        super().onReload()

    def cleanup(self):
        """Stop all work when the module is closed."""
        self.panel.exit()
        self.panel.correct.closing()
        self.panel.stop()
        self.panel.close()
        self.panel.removeObservers()


class CrossModaSegTest(ScriptedLoadableModuleTest):
    """Self-test in the real application: the checks are those of the test bed."""

    def setUp(self):
        """Start with an empty scene."""
        slicer.mrmlScene.Clear()

    def runTest(self):
        """Run the checks."""
        from CrossModaSegLib import selftest

        selftest.check_log(self)
        for check in selftest.CHECKS:
            self.setUp()
            self.delayDisplay(check.__doc__.strip())
            check(self)
        self.delayDisplay(_("All checks passed"))
