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
            "Segments the vestibular schwannoma and the cochlea on T2 MR when only contrast-enhanced T1 scans "
            "carry labels. "
            "Work from top to bottom; “Load sample data” gives a first case. Research software, not a medical device. "
            "See the <a href='https://github.com/crossmoda/SlicerCrossModa/blob/main/docs/user_guide.md'>"
            "user guide</a>."
        )
        parent.acknowledgementText = _(
            "The methods are those of these papers; please cite them. Registration (deeds): "
            "Heinrich et al., IEEE TMI 32, 2013. Image descriptor (MIND-SSC): Heinrich et al., MICCAI 2013. "
            "Fusion (STAPLE): Warfield, Zou and Wells, IEEE TMI 23, 2004. "
            "The challenge (crossMoDA): Dorent et al., Medical Image Analysis 83, 2023."
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
