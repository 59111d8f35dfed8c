"""One table says what is segmented, and it is understood under the names that others use."""

import numpy as np
import pytest

from crossmoda import labels, structure_names


def test_values_keys_and_colors_are_unique() -> None:
    assert labels.VALUES == (0, 1, 2)
    assert len({structure.key for structure in labels.STRUCTURES}) == len(labels.STRUCTURES)
    assert len({structure.color for structure in labels.STRUCTURES}) == len(labels.STRUCTURES)


def test_structures_in_a_label_map_are_those_with_voxels() -> None:
    assert [one.key for one in labels.structures_in(np.array([[0, 2], [2, 0]]))] == ["cochlea"]
    assert labels.structures_in(np.zeros((2, 2))) == ()


@pytest.mark.parametrize(
    "name",
    [
        "VS",
        "vs",
        "AN",
        "an",
        "TV",
        "tv",
        "TvT1",
        "tumor",
        "Tumor",
        "Vestibular schwannoma",
        "vestibular_schwannoma",
        "Left AN",
        "Acoustic neuroma",
        "Target volume",
        "Vestibular Schwannoma R",
    ],
)
def test_a_tumor_is_known_under_its_names(name: str) -> None:
    """AN, TV and TvT1 are the contour names of the Vestibular-Schwannoma-SEG collection."""
    structure = structure_names.structure_of_name(name)
    assert structure is not None
    assert structure.value == labels.VS


@pytest.mark.parametrize("name", ["cochlea", "Cochlea", "COCHLEA", "Left Cochlea", "cochlea_R", "Cochleas", "cochleae"])
def test_a_cochlea_is_known_under_its_names(name: str) -> None:
    structure = structure_names.structure_of_name(name)
    assert structure is not None
    assert structure.value == labels.COCHLEA


@pytest.mark.parametrize(
    "name", ["Vol 2y", "Vol2016", "T1+ 13", "Modiolus", "Men", "structures", "6m", "Brainstem", ""]
)
def test_other_contours_of_the_collection_are_left_out(name: str) -> None:
    """Earlier volumes, the modiolus and a meningioma are neither."""
    assert structure_names.structure_of_name(name) is None


def test_terminology_is_known_by_its_codes_not_its_words() -> None:
    for structure in labels.STRUCTURES:
        assert structure_names.structure_of_terminology(structure.terminology) is structure
        reworded = structure.terminology.replace("Cochlea", "Schnecke").replace("Mass", "Tumor")
        assert structure_names.structure_of_terminology(reworded) is structure
    assert structure_names.structure_of_terminology("") is None
    assert structure_names.structure_of_terminology("a~SCT^1^x~SCT^2^y~^^~b~^^~^^") is None


@pytest.mark.parametrize("structure", labels.STRUCTURES, ids=lambda structure: structure.key)
def test_terminology_has_the_seven_fields_of_slicer(structure: labels.Structure) -> None:
    fields = structure.terminology.split("~")
    assert len(fields) == 7
    assert all(field.count("^") == 2 for number, field in enumerate(fields) if number not in (0, 4))


@pytest.mark.parametrize(
    ("code", "keyword"),
    [("49755003", "MorphologicallyAbnormalStructure"), ("4147007", "Mass"), ("361078006", "InternalAuditoryCanal")],
)
def test_codes_of_the_tumor_are_those_of_the_dicom_standard(code: str, keyword: str) -> None:
    """pydicom carries the code lists of DICOM PS3.16: the independent source."""
    from pydicom.sr.codedict import codes

    assert f"SCT^{code}^" in labels.STRUCTURES[0].terminology
    assert getattr(codes.SCT, keyword).value == code
