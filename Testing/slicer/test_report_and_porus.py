"""After a measurement: the plane of the porus can be dragged, the report is written, opened and printed."""

import json
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.bed


#: The canal of the scan: its axis is the template's, as its ear frames state.
RADIUS_MM, BEYOND_MM = 2.0, 6.0


def a_tumor(volume) -> np.ndarray:
    """Return a rod along the left canal of the template, from the fundus to beyond the porus (z, y, x)."""
    from CrossModaSegLib.scene import nodes

    from crossmoda.anatomy import template

    marks, grid = template.load().landmarks, nodes.grid_of(volume)
    porus, fundus = marks["porus"], marks["fundus"]
    along = (porus - fundus) / np.linalg.norm(porus - fundus)
    offset = grid.points(np.ones(grid.shape, bool)).reshape(*grid.shape, 3) - fundus
    position = offset @ along
    away = np.linalg.norm(offset - position[..., None] * along, axis=-1)
    inside = (position >= 0) & (position <= np.linalg.norm(porus - fundus) + BEYOND_MM)
    return (inside & (away <= RADIUS_MM)).astype(np.uint8)


def keep_ear_frames(volume, folder: Path) -> None:
    """Keep the ear frames of a scan that lies as the template does: the search would take long."""
    from CrossModaSegLib.scene import export, nodes

    from crossmoda import user_cache
    from crossmoda.anatomy import template
    from crossmoda.anatomy.ear_frame import EarFrame, EarFrames, _Search
    from crossmoda.volume import read_scan

    export.write_volume(nodes.rounded_copy(volume), folder / "scan.nrrd")
    frames = []
    for side, sign in (("left", 1.0), ("right", -1.0)):
        mirror = np.diag([sign, 1, 1, 1])
        marks = {name: point * [sign, 1, 1] for name, point in template.load().landmarks.items()}
        frames.append(EarFrame(side, mirror, marks, 1.0, 1.0, 0.0))
    key = _Search(read_scan(folder / "scan.nrrd"), None)._key
    user_cache.keep("ear_frames", f"{key}-first", EarFrames(*frames, "T2", 1.0).to_json())


@pytest.fixture
def measured(panel, add_volume, tmp_path_factory, monkeypatch):
    """The panel with a measured segmentation."""
    from CrossModaSegLib import selftest
    from CrossModaSegLib.scene import nodes

    monkeypatch.setenv("CROSSMODA_CACHE", str(tmp_path_factory.mktemp("cache")))
    gray = np.random.default_rng(0).integers(1, 900, (24, 30, 60)).astype(np.int16)
    volume = add_volume("scan", gray, (-0.5, -0.5, 0.5), (-13.0, -19.0, -48.0))
    keep_ear_frames(volume, tmp_path_factory.mktemp("scan"))
    result = nodes.make_segmentation(a_tumor(volume), volume, "result", "prediction")
    nodes.watch_corrections(result)
    panel.parameters.target, panel.parameters.result = volume, result
    panel.update()
    selftest.press(panel, panel.result.ui.measureButton)
    assert "mm extrameatal" in panel.result.ui.sentenceLabel.text
    return panel


@pytest.fixture
def opened_files(monkeypatch):
    """The files that were opened in the system's programs."""
    import qt

    files = []

    def open_url(url):
        files.append(Path(url.toLocalFile()))
        return True

    monkeypatch.setattr(qt.QDesktopServices, "openUrl", open_url)
    return files


def column(panel, name: str) -> list:
    """Return the values of a column of the table of measures."""
    from CrossModaSegLib.scene import measures

    content = measures.table_of(panel.parameters.result).GetTable()
    values = content.GetColumnByName(name)
    return [values.GetValue(row) for row in range(content.GetNumberOfRows())] if values else []


def wait_for_measures(application, panel) -> None:
    """Wait until a moved plane was measured."""
    application.wait_until(lambda: panel.logic.busy, 20)
    application.wait_until(lambda: not panel.logic.busy)
    panel.update()
    assert panel.logic.queue.succeeded, panel.result.ui.messageLabel.text


def test_a_dragged_plane_of_the_porus_is_measured_and_said(application, measured):
    import slicer
    from CrossModaSegLib.scene import porus

    panel, result = measured, measured.parameters.result
    ((side, plane),) = porus.planes_of(result).items()
    assert plane.GetDisplayNode().GetHandlesInteractive() and side in plane.GetName()
    before, volume = column(panel, "extrameatal volume [mm3]")[0], column(panel, "volume [mm3]")[0]
    assert not column(panel, "plane of the porus")
    point, normal = np.array(plane.GetOriginWorld()), np.array(plane.GetNormalWorld())
    for step in np.linspace(0.2, 3, 5):  # as a mouse does
        plane.SetOriginWorld(*(point + step * normal))
    wait_for_measures(application, panel)
    after = column(panel, "extrameatal volume [mm3]")[0]
    assert after < before
    assert column(panel, "intrameatal volume [mm3]")[0] + after == pytest.approx(volume, rel=1e-3)
    assert column(panel, "plane of the porus")[0] == "moved"
    table = panel.result.ui.measuresTable
    assert (table.item(table.rowCount - 1, 0).text(), table.item(table.rowCount - 1, 1).text()) == (
        "plane of the porus",
        "moved",
    )
    assert plane.GetOriginWorld() == pytest.approx(point + 3 * normal, abs=1e-6), "it stays where it was dragged"
    slicer.mrmlScene.RemoveNode(plane)
    panel.result.ui.measureButton.click()
    wait_for_measures(application, panel)
    assert column(panel, "extrameatal volume [mm3]")[0] == pytest.approx(before)
    assert porus.planes_of(result)[side].GetOriginWorld() == pytest.approx(point, abs=0.01)


def test_a_moved_plane_is_kept_in_a_saved_scene_and_can_be_dragged_on(application, measured, tmp_path):
    import slicer
    from CrossModaSegLib.scene import porus

    panel = measured
    ((side, plane),) = porus.planes_of(panel.parameters.result).items()
    point, normal = np.array(plane.GetOriginWorld()), np.array(plane.GetNormalWorld())
    plane.SetOriginWorld(*(point + 2 * normal))
    wait_for_measures(application, panel)
    moved = column(panel, "extrameatal volume [mm3]")[0]
    assert slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    slicer.mrmlScene.Clear(False)
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    panel.update()
    application.wait_until(lambda: not panel._timer.isActive())
    assert not panel.logic.busy and column(panel, "extrameatal volume [mm3]")[0] == moved
    plane = porus.planes_of(panel.parameters.result)[side]
    assert plane.GetOriginWorld() == pytest.approx(point + 2 * normal, abs=0.01)
    plane.SetOriginWorld(*(point + 4 * normal))
    wait_for_measures(application, panel)
    assert column(panel, "extrameatal volume [mm3]")[0] < moved


def test_the_interval_of_the_volume_is_kept_until_a_person_corrects(measured):
    from CrossModaSegLib import selftest
    from CrossModaSegLib.scene import measures

    result = measured.parameters.result
    result.SetAttribute(measures.INTERVALS, json.dumps({"left": [150.0, 290.0]}))
    selftest.press(measured, measured.result.ui.measureButton)
    limits = ("volume, low [mm3]", "volume, high [mm3]")
    assert [column(measured, name)[0] for name in limits] == [150, 290]
    selftest.paint_ball(result, "VS", radius_voxels=8)
    selftest.press(measured, measured.result.ui.measureButton)
    assert np.isnan([column(measured, name)[0] for name in limits]).all()


def test_the_report_is_written_beside_the_scan_and_opened(application, measured, opened_files, tmp_path, monkeypatch):
    import qt
    from CrossModaSegLib import selftest

    panel, asked = measured, []

    def choose(_parent, _title, start):
        asked.append(start)
        return str(tmp_path)

    monkeypatch.setattr(qt.QFileDialog, "getExistingDirectory", choose)
    scan = tmp_path / "scans" / "Jane_Doe.nrrd"
    panel.parameters.target.AddDefaultStorageNode()
    panel.parameters.target.GetStorageNode().SetFileName(str(scan))
    for name in ("result report", "result report_2"):
        selftest.press(panel, panel.result.ui.reportButton)
        assert opened_files[-1] == tmp_path / f"{name}.html"
    assert asked == [str(scan.parent)], "asked once, beside the scan"
    html = opened_files[0].read_text("utf-8")
    assert html.count("<img ") >= 1 and "extrameatal" in html and scan.stem not in html
    measures = json.loads(opened_files[0].with_suffix(".json").read_text("utf-8"))
    assert measures["tumors"][0]["volume_mm3"] == pytest.approx(column(panel, "volume [mm3]")[0], abs=0.01)
    assert opened_files[1].as_uri() in panel.result.ui.messageLabel.text


def test_the_printed_report_has_the_page(application, measured, opened_files, tmp_path):
    from CrossModaSegLib import selftest

    panel = measured
    panel.parameters.exportFolder = str(tmp_path)
    panel.update()
    temporary = set(Path(application.temporaryPath).glob("CrossModa-*"))
    selftest.press(panel, panel.result.ui.pdfButton)
    assert opened_files == [tmp_path / "result report.pdf"]
    content = opened_files[0].read_bytes()
    assert content.startswith(b"%PDF") and b"/Subtype /Image" in content
    assert [path.name for path in tmp_path.iterdir()] == ["result report.pdf"], "the page itself was temporary"
    assert set(Path(application.temporaryPath).glob("CrossModa-*")) == temporary


def test_a_locked_folder_is_reported_beside_the_button(application, measured, opened_files, tmp_path):
    from CrossModaSegLib import selftest

    panel = measured
    (tmp_path / "file").write_text("")
    panel.parameters.exportFolder = str(tmp_path / "file")
    panel.update()
    for button in (panel.result.ui.reportButton, panel.result.ui.pdfButton):
        selftest.press(panel, button)
        assert panel.result.is_error and "file" in panel.result.ui.messageLabel.text
    assert opened_files == []
