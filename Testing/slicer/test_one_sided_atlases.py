"""Atlases that have the cochlea on the tumor's side only: the panel labels the other one as the engine does."""

import dataclasses
import json

import numpy as np
import pytest

from crossmoda import deeds, labels, volume
from crossmoda.anatomy import laterality
from crossmoda.dataset import Case, open_dataset
from crossmoda.propagation import Settings, propagate

pytestmark = pytest.mark.slow

#: The votes at a border change a little with the last bits of where its voxels are (docs/validation/propagation.md).
ABOUT = 0.02


@pytest.fixture(scope="module")
def one_sided(tmp_path_factory) -> tuple[Case, list[Case]]:
    """A target, and three atlases without the cochlea of the healthy side; their borders are far from the ears."""
    from crossmoda.simulation import Settings, simulate_dataset

    folder, atlases = tmp_path_factory.mktemp("one sided"), []
    settings = Settings(field_of_view=125.0, slices=24, in_plane_spacing=1.25, slice_thickness=2.0)
    data = open_dataset(simulate_dataset(folder / "data", sources=3, targets=1, tests=0, seed=4, settings=settings))
    for case in data.sources:
        label = case.read_label()
        sides = laterality.find_sides(label)
        on_left = np.broadcast_to(laterality.lateral_mm(label.grid) > sides.midplane_mm, label.array.shape)
        healthy = ~on_left if sides.tumor == "left" else on_left
        array = np.where(healthy & (label.array == labels.COCHLEA), 0, label.array).astype(np.uint8)
        volume.write(label.with_array(array), folder / case.label.name)
        atlases.append(dataclasses.replace(case, label=folder / case.label.name))
    return data.targets[0], atlases


@pytest.fixture
def loaded(panel, one_sided):
    """The panel with them in the scene."""
    import slicer

    target, atlases = one_sided
    for case in atlases:
        scan = slicer.util.loadVolume(str(case.image), {"name": case.id})
        label = slicer.util.loadLabelVolume(str(case.label), {"name": case.id + " label"})
        panel.logic.addCase(scan, label, "ceT1")
    panel.parameters.target = slicer.util.loadVolume(str(target.image), {"name": target.id})
    panel.logic.addCase(panel.parameters.target)
    panel.update()
    return panel


def label_map(segmentation) -> np.ndarray:
    import slicer
    from CrossModaSegLib.scene import nodes

    target = segmentation.GetNodeReference(nodes.TARGET)
    array = np.zeros(slicer.util.arrayFromVolume(target).shape, np.uint8)
    for structure in labels.STRUCTURES:
        array[slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, structure.key, target) > 0] = structure.value
    return array


def confidence(segmentation) -> np.ndarray:
    import slicer
    from CrossModaSegLib.scene import nodes

    return slicer.util.arrayFromVolume(nodes.products("confidence", segmentation.GetNodeReference(nodes.TARGET))[-1])


def volume_of(node, target) -> np.ndarray:
    """Return a volume's voxels on the target's grid."""
    import slicer
    from CrossModaSegLib.scene import nodes

    own = volume.Volume(slicer.util.arrayFromVolume(node).astype(np.float32), nodes.grid_of(node))
    return volume.resample(own, nodes.grid_of(target), interpolation="nearest").array


def propagated(application, loaded, side: str, **settings) -> list[str]:
    """Propagate in the panel; return the titles of its steps."""
    loaded.parameters.tumorSide = side
    loaded.parameters.registerSettings = json.dumps({"CrossModaRegister": settings})
    loaded.update()
    loaded.register.ui.registerButton.click()
    tasks = loaded.logic.queue.tasks
    application.wait_until(lambda: not loaded.logic.busy)
    assert [task.error for task in tasks if task.error] == []
    loaded.update()
    return [task.title for task in tasks]


def copied(target) -> list[str]:
    """Return the atlases whose mirrored copies are in the scene."""
    from CrossModaSegLib.scene import nodes

    copies = [node for node in nodes.products("warped label", target) if node.GetAttribute(nodes.COPY)]
    return [node.GetNodeReference(nodes.ATLAS).GetName() for node in copies]


def test_mirrored_copies_label_the_missing_cochlea_as_the_engine_does(application, loaded, one_sided, tmp_path):
    from CrossModaSegLib.scene import nodes

    target, atlases = one_sided
    whole = propagate(
        dataclasses.replace(target, label=None),
        atlases,
        tmp_path,
        Settings(tumor_side="left"),
        parallel_registrations=1,
    )
    titles = propagated(application, loaded, "left")
    first = label_map(loaded.parameters.noisyLabel)
    assert (first != whole.label_map.array).sum() <= 5, "voxels at the border"
    expected = volume.read(tmp_path / "confidence.nii.gz").array
    np.testing.assert_allclose(confidence(loaded.parameters.noisyLabel), expected, atol=ABOUT)
    on_right = laterality.lateral_mm(whole.label_map.grid) < 0
    assert ((whole.label_map.array == labels.COCHLEA) & on_right).any()
    message = loaded.register.ui.messageLabel.text
    assert "No atlas has the right cochlea: mirrored copies speak about it (1)." in message
    assert "No atlas has the right cochlea: a mirrored copy speaks about it." in whole.notes
    assert copied(loaded.parameters.target) == [item.atlas for item in whole.outcomes if item.tumor_side == "right"]
    assert titles == [
        *(f"Register crossmoda_{number}" for number in (1, 2, 3)),
        *("Write the target", "Compare both sides"),
        "Choose atlases for the other cochlea",
        f"Register {copied(loaded.parameters.target)[0]} (tumor on the right)",
        *("Write the registered atlases", "Fuse the labels"),
    ]
    assert not loaded.parameters.warpedAtlas.GetAttribute(nodes.COPY), "the visual check begins with an atlas"
    assert "registered" in loaded.cases.rows[0].state(loaded.parameters.target)
    again = propagated(application, loaded, "left")
    assert not [title for title in again if title.startswith(("Register", "Compare"))], "all of it is done already"
    np.testing.assert_array_equal(label_map(loaded.parameters.noisyLabel), first)
    assert len(nodes.products("warped label")) == len(nodes.products("warped atlas")) == 4


def test_the_probes_of_the_tumors_side_become_the_copies_and_the_others_are_removed(application, loaded):
    from CrossModaSegLib.scene import nodes

    titles = propagated(application, loaded, "auto", levels=1)
    assert [title for title in titles if "Register" in title] == [
        f"Register crossmoda_{number} (tumor on the {side})" for number in (1, 2, 3) for side in ("left", "right")
    ]
    assert len(copied(loaded.parameters.target)) == 1
    assert len(nodes.products("warped label")) == len(nodes.products("warped atlas")) == 4
    message = loaded.register.ui.messageLabel.text
    assert "The tumor is on the left" in message and "mirrored copies speak about it (1)." in message
    array = label_map(loaded.parameters.noisyLabel)
    on_right = laterality.lateral_mm(nodes.grid_of(loaded.parameters.target)) < 0
    assert ((array == labels.COCHLEA) & on_right).any()


def test_the_side_is_the_engines_and_where_it_is_doubtful_so_is_the_label(application, loaded, one_sided, tmp_path):
    from CrossModaSegLib.processes import sides
    from CrossModaSegLib.scene import nodes

    scan = loaded.parameters.target
    target, atlases = one_sided
    whole = propagate(
        dataclasses.replace(target, label=None),
        atlases,
        tmp_path,
        registration=deeds.Settings(levels=1),
        parallel_registrations=1,
    )
    propagated(application, loaded, "auto", levels=1)
    told = json.loads((tmp_path / "provenance.json").read_text("utf-8"))
    found = sides.recall(scan)
    assert found["side"] == told["tumor_side"]
    assert found["certainty"] == pytest.approx(told["side_certainty"], abs=1e-3)
    assert (label_map(loaded.parameters.noisyLabel) == whole.label_map.array).mean() > 0.9999
    expected = volume.read(tmp_path / "confidence.nii.gz").array
    assert np.percentile(np.abs(confidence(loaded.parameters.noisyLabel) - expected), 99.9) < ABOUT
    # The next run heeds a doubt of the first, which is found again in a scene.
    scan.SetAttribute(nodes.SIDE_FOUND, json.dumps({**found, "certainty": 0.6, "sure": False}))
    sure = confidence(loaded.parameters.noisyLabel)
    propagated(application, loaded, "auto", levels=1)
    doubted, tumor = confidence(loaded.parameters.noisyLabel), label_map(loaded.parameters.noisyLabel) == labels.VS
    np.testing.assert_allclose(doubted[tumor], 0.6 * sure[tumor], atol=1e-4)
    elsewhere = volume_of(scan.GetNodeReference(sides.ELSEWHERE), scan)
    there = elsewhere == 1
    assert there.any() and doubted[there].max() < 0.61
    assert "The tumor is probably on the left" in loaded.register.ui.messageLabel.text
    assert nodes.provenance(loaded.parameters.noisyLabel)["parameters"]["side_certainty"] == 0.6
    # What the user says is certain.
    propagated(application, loaded, "left", levels=1)
    np.testing.assert_allclose(confidence(loaded.parameters.noisyLabel)[tumor], sure[tumor], atol=1e-4)
    assert "probably" not in loaded.register.ui.messageLabel.text
    # And so is what a data set says.
    assert sides.doubt(scan) != {}
    loaded.logic.addCase(scan, side=found["side"])
    assert sides.doubt(scan) == {}


def test_cancelling_a_copy_keeps_the_atlases_and_the_next_run_goes_on_with_it(application, loaded):
    from CrossModaSegLib.processes.tasks import DONE, RUNNING
    from CrossModaSegLib.scene import nodes

    loaded.parameters.tumorSide = "left"
    loaded.parameters.registerSettings = json.dumps({"CrossModaRegister": {"levels": 1}})
    loaded.update()
    loaded.register.ui.registerButton.click()
    tasks = loaded.logic.queue.tasks
    assert len(tasks) == 7
    application.wait_until(lambda: tasks[0].state == DONE)
    assert len(tasks) == 9, "the choice of the copies, and one copy"
    application.wait_until(lambda: tasks[6].state == RUNNING)
    loaded.register.ui.cancelButton.click()
    application.wait_until(lambda: not loaded.logic.busy)
    assert (len(nodes.products("warped label")), loaded.parameters.noisyLabel) == (3, None)
    titles = propagated(application, loaded, "left", levels=1)
    assert [title.partition(" ")[0] for title in titles] == ["Choose", "Register", "Write", "Fuse"]
    assert len(copied(loaded.parameters.target)) == 1


def test_the_panel_makes_as_many_copies_and_probes_as_the_engine(application, panel):
    from CrossModaSegLib.processes import propagating

    from crossmoda.propagation import missing_cochlea

    assert propagating.COPIES == missing_cochlea.SHARE
    assert Settings().probes == propagating.PROBES
