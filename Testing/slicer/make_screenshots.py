"""Take the pictures of the pages: what a user sees in the panel, with views drawn by Slicer's own managers.

``python Testing/slicer/make_screenshots.py PART DATA RESULTS`` writes into Resources/Screenshots.
The pictures are of the test bed: the widgets look a little different in Slicer itself.
"""

import argparse
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parents[1]
sys.path.insert(0, str(HERE))

import numpy as np  # noqa: E402
from PIL import Image  # noqa: E402
from testbed import application as bed  # noqa: E402
from testbed.views import Window  # noqa: E402

#: Of a picture: gray slices, a few outlines, a panel.
COLORS = 64


class Photographer:
    """Goes through the panel and takes a picture of each state."""

    def __init__(self, folder: Path):
        """Start the application and open the panel."""
        import slicer

        self.folder, self.frames = folder, []
        self.app = bed.start()
        self.module = self.app.load_scripted_module(PROJECT / "CrossModaSeg/CrossModaSeg.py")
        for xml in sorted(PROJECT.glob("CrossModa*/*.xml")):
            self.app.load_cli_module(xml.with_suffix(".py"))
        slicer.util.selectModule("CrossModaSeg")
        self.panel = slicer.util.getModuleWidget("CrossModaSeg").panel
        self.window = Window(self.app)
        self.app.wait_until(lambda: self.panel.setup._search.over)

    def take(self, name: str) -> None:
        """Take a picture of what a user sees now, with few colors."""
        self.panel.update()
        path = self.folder / f"{name}.png"
        self.window.picture(self.module.widgetRepresentation()).save(str(path))
        self.frames.append(Image.open(path).convert("RGB"))
        Image.open(path).quantize(COLORS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(
            path, optimize=True
        )
        print(path, f"{path.stat().st_size / 1024:.0f} KB")

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

    def clinician(self, scan: Path, previous: Path | None = None) -> None:
        """Go from a loaded scan to its measures with the bundled model, then to the growth since a previous scan."""
        import slicer
        from CrossModaSegLib.scene import growth

        panel = self.panel
        panel.exit()
        scans = [slicer.util.loadVolume(str(file)) for file in (scan, previous) if file is not None]
        panel.enter()
        self.window.show()
        self.take("opened")
        panel.measure.ui.applyButton.click()
        self.app.wait_until(lambda: panel.logic.queue.progress > 0.3 or not panel.logic.busy, 1200)
        self.frame()
        self.app.wait_until(lambda: not panel.logic.busy, 1200)
        panel.update()
        self.aim(panel.parameters.result, "VS", 90)
        self.take("measured")
        panel.result.ui.uncertaintyButton.click()
        self.take("uncertainty")
        panel.result.ui.uncertaintyButton.click()
        self.drag_porus()
        self.frame()
        if previous is not None:
            panel.parameters.previous = scans[1]
            panel.growth.ui.sectionButton.collapsed = False
            panel.update()
            self.press(panel.growth.ui.compareButton)
            self.aim(growth.outlines(growth.table_of(scans[0]))[1], "VS", 60)
            self.take("growth")
        self.animate("click_through")

    def drag_porus(self) -> None:
        """Drag the plane of the porus by 3 mm, and wait until it is measured."""
        from CrossModaSegLib.scene import porus

        for plane in porus.planes_of(self.panel.parameters.result).values():
            moved = np.array(plane.GetOriginWorld()) + 3 * np.array(plane.GetNormalWorld())
            plane.SetOriginWorld(*moved)
            self.app.wait_until(lambda: self.panel.logic.busy, 20)
            self.app.wait_until(lambda: not self.panel.logic.busy, 600)
            self.panel.update()

    def frame(self) -> None:
        """Keep what a user sees now as a picture of the animation."""
        path = self.folder / "frame.png"
        self.panel.update()
        self.window.picture(self.module.widgetRepresentation()).save(str(path))
        self.frames.append(Image.open(path).convert("RGB"))
        path.unlink()

    def animate(self, name: str) -> None:
        """Write the pictures so far as an animation, two seconds each."""
        height = max(frame.height for frame in self.frames)
        padded = [Image.new("RGB", (frame.width, height), "#efefef") for frame in self.frames]
        for canvas, frame in zip(padded, self.frames, strict=True):
            canvas.paste(frame)
        first, *others = (frame.quantize(COLORS, dither=Image.Dither.NONE) for frame in padded)
        path = self.folder / f"{name}.gif"
        first.save(path, save_all=True, append_images=others, duration=2000, loop=0, optimize=True)
        print(path, f"{path.stat().st_size / 1024:.0f} KB, {len(padded)} pictures")

    def cases(self, data: Path) -> None:
        """Load a data set."""
        panel = self.panel
        panel.show_tab(panel.cases)
        panel.parameters.datasetFolder = str(data)
        panel.update()
        self.press(panel.cases.ui.openButton)
        self.press(panel.cases.ui.loadButton)
        self.window.show()
        self.take("cases")

    def atlases(self) -> None:
        """Register the atlases of a data set to its first target, and fuse their labels."""
        panel, parameters = self.panel, self.panel.parameters
        panel.register.ui.registerButton.click()
        tasks = panel.logic.queue.tasks
        self.app.wait_until(lambda: tasks[1].state == "running" and tasks[1].progress > 0.3, 1200)
        self.take("registering")
        self.app.wait_until(lambda: not panel.logic.busy, 1200)
        for task in tasks:
            print(task.title, task.state, task.error, f"{task.seconds:.1f} s")
        panel.update()
        self.aim(parameters.noisyLabel, "VS", 90)
        self.take("fused")
        panel.register.ui.disagreementButton.click()
        self.take("disagreement")
        self.window.show()
        parameters.check = "checkerboard"
        panel.register.ui.checkButton.click()
        self.take("check_checkerboard")

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
        self.take("problems")

    def review(self, data: Path, results: Path) -> None:
        """Review, correct and improve, on a copy of a data set and its results."""
        import shutil
        import tempfile

        panel, parameters = self.panel, self.panel.parameters
        with tempfile.TemporaryDirectory(prefix="review-") as name:
            data, results = (
                shutil.copytree(source, Path(name) / copy)
                for source, copy in ((data, "vs_cohort"), (results, "results"))
            )
            panel.show_tab(panel.review)
            parameters.datasetFolder, parameters.resultsFolder = str(data), str(results)
            panel.update()
            self.press(panel.review.ui.listButton)
            panel.review.open(panel.review.items[0]["id"])
            self.app.wait_until(lambda: not panel.logic.busy, 600)
            panel.update()
            case = panel.review.case
            self.aim(case.correction, "VS", 60)
            panel.review.regions.go(1)
            self.take("review_region")
            panel.review.ui.votesCheckBox.checked = True
            self.app.wait_until(lambda: not panel.logic.busy, 600)
            parameters.overlay = "nothing"
            panel.update()
            self.take("review_votes")
            panel.review.ui.votesCheckBox.checked = False
            self.press(panel.correct.ui.smoothButton)
            panel.correct.autosave.save_draft()
            self.take("correct")
            for item in panel.review.items[:2]:
                self.press(panel.review.ui.acceptButton)
                print(item["id"], panel.review.ui.messageLabel.text)
            parameters.modelsFolder = str(Path(name) / "models")
            parameters.improveMinutes = 1.0
            panel.update()
            panel.improve.ui.improveButton.click()
            self.app.wait_until(lambda: not panel.improve.running, 1200)
            panel.update()
            panel.show_tab(panel.improve)
            for section in (panel.cases, panel.register):
                section.ui.sectionButton.collapsed = True  # the user scrolled past them
            panel.improve.ui.sectionButton.collapsed = False
            self.take("improved")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=["clinician", "atlases", "problems", "review"], help="part of the guide")
    parser.add_argument("data", type=Path, help="data set with atlases and two targets, as of `crossmoda simulate`")
    parser.add_argument("results", type=Path, help="its results, of `crossmoda propagate` and `crossmoda predict`")
    parser.add_argument("--scan", type=Path, help="scan of the clinician, instead of the first target of DATA")
    parser.add_argument("--previous", type=Path, help="a previous scan of the same patient")
    parser.add_argument("--output", type=Path, default=PROJECT / "Resources/Screenshots", help="folder of the pictures")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    photographer = Photographer(options.output)
    if options.part == "clinician":
        photographer.clinician(options.scan or min(options.data.rglob("*_hrT2.nii.gz")), options.previous)
    elif options.part == "atlases":
        photographer.cases(options.data)
        photographer.atlases()
    elif options.part == "problems":
        photographer.cases(options.data)
        photographer.problems()
    else:
        photographer.review(options.data, options.results)
    photographer.app.close()
