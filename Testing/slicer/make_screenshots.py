"""Take the pictures of the user guide: the panel in every state, with slice views drawn by Slicer's own managers.

``python Testing/slicer/make_screenshots.py`` writes Resources/Screenshots/*.png and the sample's thumbnail; it takes
some minutes. The pictures are of the test bed: the widgets look a little different in Slicer itself.
"""

import argparse
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parents[1]
sys.path.insert(0, str(HERE))

import numpy as np  # noqa: E402
from PySide6 import QtCore  # noqa: E402
from testbed import application as bed  # noqa: E402
from testbed.views import Window, to_image  # noqa: E402


class Photographer:
    """Goes through the panel and takes a picture of each state."""

    def __init__(self, folder: Path):
        """Start the application and open the panel."""
        import slicer

        self.folder = folder
        self.app = bed.start()
        self.module = self.app.load_scripted_module(PROJECT / "CrossModaSeg/CrossModaSeg.py")
        for xml in sorted(PROJECT.glob("CrossModa*/*.xml")):
            self.app.load_cli_module(xml.with_suffix(".py"))
        slicer.util.selectModule("CrossModaSeg")
        self.panel = slicer.util.getModuleWidget("CrossModaSeg").panel
        self.window = Window(self.app)
        self.app.wait_until(lambda: self.panel.setup._search.over)

    def take(self, name: str, *open_sections: str) -> None:
        """Take a picture with only some sections open."""
        for section in self.panel.sections:
            section.ui.sectionButton.collapsed = section.name not in open_sections
        self.panel.update()
        path = self.folder / f"{name}.png"
        self.window.picture(self.module.widgetRepresentation()).save(str(path))
        print(path)

    def press(self, button) -> None:
        """Click a button and wait."""
        if not button.enabled:
            raise RuntimeError(f"{button.text}: {button.toolTip}")
        button.click()
        self.app.wait_until(lambda: not self.panel.logic.busy, 1200)
        self.panel.update()

    def aim(self, segmentation, key: str, field_of_view_mm: float) -> None:
        """Center the views on a segment."""
        import slicer
        import vtk
        from CrossModaSegLib.scene import nodes

        volume = segmentation.GetNodeReference(nodes.TARGET)
        array = slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, key, volume)
        matrix = vtk.vtkMatrix4x4()
        volume.GetIJKToRASMatrix(matrix)
        center = matrix.MultiplyPoint([*np.argwhere(array).mean(0)[::-1], 1.0])[:3]
        self.window.show(field_of_view_mm, center)

    def all(self, sample: dict | None) -> None:
        """Go the whole way."""
        from crossmoda import weights

        panel, parameters = self.panel, self.panel.parameters
        self.take("opened", "Setup", "Cases")
        panel.sample = sample
        panel.cases.ui.sampleButton.click()
        self.app.wait_until(lambda: panel.logic.queue.progress > 0.2, 600)
        self.take("simulating", "Setup", "Cases")
        self.app.wait_until(lambda: not panel.logic.busy, 1200)
        self.window.show()
        self.take("cases", "Cases", "Register")
        for section in (panel.register, panel.measure):
            section.ui.advancedGroupBox.collapsed = False
        self.take("advanced", "Register", "Segment")
        for section in (panel.register, panel.measure):
            section.ui.advancedGroupBox.collapsed = True
        panel.register.ui.registerButton.click()
        tasks = panel.logic.queue.tasks
        self.app.wait_until(lambda: tasks[1].state == "running" and tasks[1].progress > 0.3, 1200)
        self.take("registering", "Cases", "Register")
        self.app.wait_until(lambda: not panel.logic.busy, 1200)
        for task in tasks:
            print(task.title, task.state, task.error, f"{task.seconds:.1f} s")
        panel.update()
        self.aim(parameters.noisyLabel, "VS", 90)
        self.take("fused", "Cases", "Register")
        panel.register.ui.disagreementButton.click()
        self.take("disagreement", "Register")
        self.window.show()
        for mode in ("fade", "checkerboard", "contour"):
            parameters.check = mode
            panel.register.ui.checkButton.click()
            if mode == "contour":
                self.aim(parameters.noisyLabel, "VS", 90)
            self.take(f"check_{mode}", "Register")
        if weights.bundled().is_file():
            self.segment()
        self.result()
        self.problems()

    def segment(self) -> None:
        """Segment with the bundled weights."""
        from CrossModaSegLib.scene import display

        panel, parameters = self.panel, self.panel.parameters
        self.press(panel.measure.ui.applyButton)
        self.aim(parameters.result, "VS", 90)
        self.take("segmented", "Segment", "Result")
        panel.result.ui.uncertaintyButton.click()
        self.take("uncertainty", "Segment", "Result")
        display.show_target(parameters.target)

    def result(self) -> None:
        """Measure, correct, export."""
        import tempfile

        from CrossModaSegLib import selftest
        from CrossModaSegLib.scene import display

        panel, parameters = self.panel, self.panel.parameters
        display.outline_only(parameters.result, False)
        selftest.paint_ball(parameters.result, "cochlea", 3)
        panel.update()
        self.press(panel.result.ui.measureButton)
        with tempfile.TemporaryDirectory(prefix="results-") as folder:
            parameters.exportFolder = folder
            panel.update()
            self.press(panel.result.ui.exportButton)
            self.aim(parameters.result, "VS", 90)
            self.take("result", "Result")
            parameters.exportFolder = ""

    def problems(self) -> None:
        """Show how problems look: in the row, and at the button."""
        import slicer

        panel = self.panel
        picture = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "screenshot")
        slicer.util.updateVolumeFromArray(picture, np.ones((8, 32, 32), np.float32))
        panel.logic.addCase(picture)
        atlas = next(row.volume for row in panel.cases.rows if row.is_atlas)
        transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "Moved")
        atlas.SetAndObserveTransformNodeID(transform.GetID())
        panel.cases.ui.sceneGroupBox.collapsed = False
        panel.cases.ui.volumeSelector.setCurrentNode(picture)
        panel.update()
        panel.cases.ui.addTargetButton.click()
        self.take("problems", "Cases", "Register")

    def review(self, demo: Path) -> None:
        """Review, correct and improve, on a copy of what ``crossmoda demo`` made."""
        import shutil
        import tempfile

        panel, parameters = self.panel, self.panel.parameters
        with tempfile.TemporaryDirectory(prefix="review-") as name:
            data, results = Path(name) / "vs_cohort", Path(name) / "results"
            shutil.copytree(demo / "dataset", data)
            shutil.copytree(demo / "propagated", results)
            parameters.datasetFolder, parameters.resultsFolder = str(data), str(results)
            panel.update()
            self.press(panel.review.ui.listButton)
            panel.review.open(panel.review.items[0]["id"])
            self.app.wait_until(lambda: not panel.logic.busy, 600)
            panel.update()
            case = panel.review.case
            self.aim(case.correction, "VS", 60)
            panel.review.regions.go(1)
            self.take("review_region", "Review")
            panel.review.ui.votesCheckBox.checked = True
            self.app.wait_until(lambda: not panel.logic.busy, 600)
            parameters.overlay = "nothing"
            panel.update()
            self.take("review_votes", "Review")
            panel.review.ui.votesCheckBox.checked = False
            self.press(panel.correct.ui.smoothButton)
            panel.correct.autosave.save_draft()
            self.take("correct", "Correct")
            for item in panel.review.items[:2]:
                self.press(panel.review.ui.acceptButton)
                print(item["id"], panel.review.ui.messageLabel.text)
            parameters.modelsFolder = str(Path(name) / "models")
            parameters.improveMinutes = 1.0
            panel.update()
            panel.improve.ui.improveButton.click()
            self.app.wait_until(lambda: not panel.improve.running, 1200)
            panel.update()
            self.take("improved", "Improve")

    def thumbnail(self, path: Path) -> None:
        """Draw the thumbnail of Slicer's Sample Data module: the target, 280 x 260."""
        from CrossModaSegLib.scene import display

        for segmentation in (self.panel.parameters.noisyLabel, self.panel.parameters.result):
            segmentation.GetDisplayNode().SetVisibility(False)
        display.show_target(self.panel.parameters.target)
        self.window.show()
        image = to_image(self.window.views["Red"].picture())
        image.scaledToWidth(280, QtCore.Qt.SmoothTransformation).copy(0, 10, 280, 260).save(str(path))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=PROJECT / "Resources/Screenshots", help="folder of the pictures")
    parser.add_argument("--small", action="store_true", help="a coarse sample, for a quick look")
    parser.add_argument(
        "--demo",
        type=Path,
        help="only the review: of what `crossmoda demo` wrote here, "
        "after `crossmoda predict --targets DEMO/dataset --output DEMO/propagated`",
    )
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    photographer = Photographer(options.output)
    from CrossModaSegLib.selftest import SMALL_SAMPLE

    if options.demo:
        photographer.review(options.demo)
    else:
        photographer.all(SMALL_SAMPLE if options.small else None)
        photographer.thumbnail(PROJECT / "CrossModaSeg/Resources/Icons/CrossModaPhantom.png")
    photographer.app.close()
