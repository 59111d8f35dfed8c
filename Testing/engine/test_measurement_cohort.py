"""The table of a cohort: a row per tumor, and the reason where there is none."""

import csv

import numpy as np
import pytest

from crossmoda import errors, inference, volume
from crossmoda.dataset import Case
from crossmoda.measurement import cohort
from crossmoda.volume import Grid, Volume

GRID = Grid((24, 20, 12), (1.0, 1.0, 2.0), (0.0, 0.0, 0.0), (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0))


@pytest.fixture
def cases(tmp_path, monkeypatch):
    """Return three scans whose segmentation is known: with a tumor, without one, and one that fails."""
    shape = GRID.size[::-1]
    noise = np.random.default_rng(0).normal(100, 20, shape).astype(np.float32)
    listed = []
    for name in ("tumor", "healthy", "broken"):
        volume.write(Volume(noise, GRID), tmp_path / f"{name}.nii.gz")
        listed.append(Case(name, "hrT2", tmp_path / f"{name}.nii.gz"))

    def predict(case, place, *_):
        if case.id == "broken":
            raise errors.InputError("It shows no ear.")
        label = np.zeros(shape, np.uint8)
        if case.id == "tumor":
            label[4:8, 6:12, 4:10], label[9:11, 15:17, 3:6] = 1, 2
        volume.write(Volume(label, GRID), place / "label_map.nii.gz")
        volume.write(Volume((label == 1).astype(np.float32), GRID), place / "probability_VS.nii.gz")
        return inference.StoredPrediction(place, {}, ("A note.",), False)

    monkeypatch.setattr("crossmoda.inference.prediction_files._predict_case", predict)
    monkeypatch.setattr("crossmoda.weights.load", lambda _path: None)
    return listed


def test_a_cohort_is_one_table_with_a_row_per_tumor_and_the_reasons_of_failures(cases, tmp_path):
    seen = []
    path, failures = cohort.segment_and_measure(
        cases, tmp_path / "results", progress=lambda fraction, _text: seen.append(fraction)
    )
    assert failures == {"broken": "It shows no ear."}
    assert seen == sorted(seen) and seen[-1] == pytest.approx(1.0)
    with path.open(encoding="utf-8", newline="") as stream:
        rows = {row["case"]: row for row in csv.DictReader(stream)}
    assert path.name == "measures.csv" and list(rows) == ["tumor", "healthy", "broken"]
    assert float(rows["tumor"]["volume [mm3]"]) == pytest.approx(4 * 6 * 6 * 2.0)
    assert rows["tumor"]["structure"] == "VS" and rows["tumor"]["notes"].startswith("A note.")
    assert rows["healthy"]["structure"] == "no tumor" and float(rows["healthy"]["volume [mm3]"]) == 0.0
    assert rows["broken"]["volume [mm3]"] == "" and rows["broken"]["notes"] == "It shows no ear."
