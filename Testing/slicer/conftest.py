"""Slicer as fixtures: the running application inside a complete Slicer (``run_in_slicer.py``), otherwise the test bed.

Without slicer-core and PySide6 the tests that need them are skipped, or fail if $CROSSMODA_REQUIRE_TEST_BED is set, so
that a continuous build cannot be green by skipping.
"""

import importlib.util
import json
import os
import platform
import sys
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parents[1]
MISSING = [name for name in ("slicer", "PySide6") if importlib.util.find_spec(name) is None]


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """Turn a skipped test into a failed one where the test bed is required."""
    report = (yield).get_result()
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("CROSSMODA_REQUIRE_TEST_BED"):
        report.outcome = "failed"
        report.longrepr = f"Skipped, but CROSSMODA_REQUIRE_TEST_BED is set: {call.excinfo.value}"


def running_slicer():
    """Return the complete Slicer in which the tests run, or None."""
    if "slicer" in MISSING:
        return None
    import real_application

    return real_application.RealApplication() if real_application.is_running() else None


@pytest.fixture(scope="session")
def application():
    """Slicer's application, with the panel's module and the CLI modules loaded."""
    folders = (PROJECT / "CrossModaSeg", PROJECT / "CrossModaRegister", HERE / "cli_modules")
    panel_script = PROJECT / "CrossModaSeg/CrossModaSeg.py"
    cli_scripts = sorted(path.with_suffix(".py") for folder in folders for path in folder.glob("*.xml"))
    if slicer_application := running_slicer():
        slicer_application.load_missing([panel_script, *cli_scripts])
        yield slicer_application
        return
    hindrance = "needs slicer-core and PySide6: pip install crossmoda[slicer-test]" if MISSING else ""
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        hindrance = "the test bed reaches the CLI engine on Linux x86_64 only"
    if hindrance:
        pytest.skip(hindrance)
    from testbed import application as bed

    app = bed.start()
    app.load_scripted_module(panel_script)
    for script in cli_scripts:
        app.load_cli_module(script)
    app.startup_completed()
    assert app.errorLogModel().entries == []
    yield app
    app.close()


@pytest.fixture
def measured():
    """Note how long something took, for ``Testing/benchmarks/bench_panel.py``: ``measured(what, seconds, goal)``."""

    def note(what: str, seconds: float, goal: float) -> None:
        if path := os.environ.get("CROSSMODA_MEASURED"):
            with Path(path).open("a", encoding="utf-8") as stream:
                stream.write(f"| {what} | {seconds:.3f} | {goal:g} |\n")

    return note


@pytest.fixture
def scene(application):
    """An empty scene; in the test bed, Qt may not have complained afterwards."""
    application.scene.Clear(False)
    if running_slicer():
        yield application.scene
        return
    from testbed import pythonqt

    pythonqt.warnings.clear()
    yield application.scene
    assert pythonqt.warnings == []


@pytest.fixture
def panel(application, scene):
    """The panel, opened on an empty scene."""
    import slicer
    from testbed.processes import start_counting

    start_counting()
    slicer.util.selectModule("CrossModaSeg")
    panel = slicer.util.getModuleWidget("CrossModaSeg").panel
    application.wait_until(lambda: panel.setup._search.over)  # the search for a GPU is a process
    panel.update()
    yield panel
    panel.stop()
    application.wait_until(lambda: not panel.logic.busy)


@pytest.fixture
def folded(panel):
    """Fold what other tests unfolded: the tests of a process share the panel."""
    for section in panel.sections:
        for name in dir(section.ui):
            if name.endswith(("sectionButton", "GroupBox")):
                getattr(section.ui, name).collapsed = True


@pytest.fixture
def add_volume(scene):
    """Add a volume with a bright box to the scene: ``add_volume("T2", spacing=..., kind=...)``."""
    import slicer

    def add(name, array=None, spacing=(0.5, 0.5, 1.5), origin=(10.0, -20.0, 30.0), kind="vtkMRMLScalarVolumeNode"):
        if array is None:
            array = np.zeros((12, 20, 24), np.float32)
            array[4:8, 6:12, 8:14] = 100.0
        volume = scene.AddNewNodeByClass(kind, name)
        slicer.util.updateVolumeFromArray(volume, array)
        volume.SetSpacing(spacing)
        volume.SetOrigin(origin)
        volume.CreateDefaultDisplayNodes()
        return volume

    return add


@pytest.fixture
def slices(application):
    """Two slice views' nodes."""
    import slicer

    made = [slicer.vtkMRMLSliceNode() for _ in range(2)]
    for number, node in enumerate(made):
        node.SetLayoutName(f"Review{number}")
        node.SetName(f"Review{number}")
        slicer.mrmlScene.AddNode(node)
    yield made
    for node in made:
        slicer.mrmlScene.RemoveNode(node)


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    """Weights of an untrained network: what it finds is meaningless, but everything around it is real."""
    torch = pytest.importorskip("torch")
    from crossmoda import network, preprocessing
    from crossmoda import weights as files

    torch.manual_seed(0)
    settings, crop = network.Settings(width=0.25), preprocessing.Preparation()
    path = tmp_path_factory.mktemp("weights") / "untrained.safetensors"
    files.save(path, network.build(settings).state_dict(), files.new_card(settings, crop, license="none"))
    return path


@pytest.fixture(scope="session")
def sample_folder(tmp_path_factory):
    """A data set of three atlases and a target, coarse and small."""
    from crossmoda.simulation import Settings, simulate_dataset

    settings = Settings(field_of_view=90.0, slices=24, in_plane_spacing=1.0, slice_thickness=2.0)
    return simulate_dataset(
        tmp_path_factory.mktemp("data") / "sample", sources=3, targets=1, tests=0, seed=4, settings=settings
    )


@pytest.fixture
def loaded(panel, sample_folder):
    """The panel with the sample's three atlases and its target in the scene."""
    import slicer

    from crossmoda.dataset import open_dataset

    for case in open_dataset(sample_folder).cases:
        volume = slicer.util.loadVolume(str(case.image), {"name": case.id})
        atlas = case.modality == "ceT1"
        label = slicer.util.loadLabelVolume(str(case.label), {"name": case.id + " label"}) if atlas else None
        panel.logic.addCase(volume, label, case.modality)
        if not atlas:
            panel.parameters.target = volume
    panel.update()
    return panel


@pytest.fixture(scope="session")
def quick_settings():
    """Parameters of a propagation that takes seconds."""
    return {"levels": 1, "linear": "none", "weighting": "global", "initialization": "image"}


@pytest.fixture
def quick(loaded, quick_settings):
    """The panel with the sample, where a propagation is quick: of the first atlas, with its tumor on the left."""
    loaded.parameters.tumorSide = "left"
    loaded.parameters.registerSettings = json.dumps(quick_settings)
    for number in (1, 2):
        item = loaded.cases.ui.casesTable.item(number, 0)
        item.setCheckState(item.checkState().Unchecked)
    loaded.update()
    return loaded


@pytest.fixture(scope="session")
def fused_scene(tmp_path_factory):
    """The file of a scene with the result of a quick propagation; written by the first :func:`fused`."""
    return tmp_path_factory.mktemp("fused") / "scene.mrb"


@pytest.fixture
def fused(application, panel, fused_scene, request):
    """The panel after a quick propagation, which is done once."""
    import slicer

    if fused_scene.is_file():
        slicer.util.loadScene(str(fused_scene))
        panel.update()
        return panel
    quick = request.getfixturevalue("quick")
    quick.register.ui.registerButton.click()
    application.wait_until(lambda: not quick.logic.busy)
    assert quick.logic.queue.failures == [], quick.register.ui.messageLabel.text
    quick.update()
    assert slicer.util.saveScene(str(fused_scene))
    return quick


@pytest.fixture(scope="session")
def review_folders(tmp_path_factory):
    """A data set of two atlases and three targets, and the results of propagation and prediction."""
    import review_data

    return review_data.make(tmp_path_factory.mktemp("review"))


@pytest.fixture(scope="session")
def review_items(review_folders):
    """The queue of these cases, as the worker lists it."""
    sys.path.insert(0, str(PROJECT / "CrossModaSeg"))
    from CrossModaSegLib.processes import review_verbs

    return review_verbs.review_list(*map(str, review_folders), progress=lambda *_: None)["items"]


@pytest.fixture
def reviewed(application, panel, review_folders, review_items, tmp_path):
    """The panel with a listed review of its own copy of the data."""
    import copy
    import shutil

    import slicer

    for folder in review_folders:
        shutil.copytree(folder, tmp_path / folder.name)
    panel.show_tab(panel.review)
    panel.parameters.datasetFolder = str(tmp_path / "data")
    panel.parameters.resultsFolder = str(tmp_path / "results")
    panel.review.items = copy.deepcopy(review_items)
    panel.update()
    yield panel
    if application.selected_module != "CrossModaSeg":
        slicer.util.selectModule("CrossModaSeg")
    panel.show_tab(panel.measure)
    panel.review.items = []


@pytest.fixture
def opened(application, reviewed):
    """The panel with the first case of the review open."""
    reviewed.review.open(reviewed.review.items[0]["id"])
    application.wait_until(lambda: not reviewed.logic.busy)
    reviewed.update()
    return reviewed
