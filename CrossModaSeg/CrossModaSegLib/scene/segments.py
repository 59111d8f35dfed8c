"""The structures of a segmentation's segments: by terminology, by name, or as the user mapped unknown names."""

import json

import slicer
import vtk
from slicer.i18n import tr as _
from vtk.util.numpy_support import vtk_to_numpy

from crossmoda.errors import InputError

#: Attribute of a segmentation: the structure, or ``"ignore"``, of each name that the user mapped (JSON).
STRUCTURE_NAMES = "CrossModa.StructureNames"


def mapping(segmentation) -> dict[str, str]:
    """Return the names that the user mapped, and their structures; a saved scene keeps them."""
    return json.loads(segmentation.GetAttribute(STRUCTURE_NAMES) or "{}")


def map_names(segmentation, names: dict[str, str]) -> None:
    """Map names of segments to keys of structures or ``"ignore"``, beside those mapped before."""
    segmentation.SetAttribute(STRUCTURE_NAMES, json.dumps({**mapping(segmentation), **names}))


def known_segments(segmentation) -> list[tuple]:
    """Return (structure, segment ID) of the segments with a known structure, in the order of the engine's table."""
    from crossmoda import labels

    by_value = {structure.value: structure for structure in labels.STRUCTURES}
    return sorted(
        ((by_value[value], segment_id) for segment_id, _name, value in _values(segmentation) if value),
        key=lambda pair: pair[0].value,
    )


def is_empty(segmentation) -> bool:
    """Return whether no segment has voxels."""
    return all(_is_empty(segmentation, segment_id) for segment_id, _name, _value in _values(segmentation))


def unknown_names(segmentation) -> list[str]:
    """Return the names of segments with voxels whose structure is not known."""
    return [
        name
        for segment_id, name, value in _values(segmentation)
        if value is None and not _is_empty(segmentation, segment_id)
    ]


def problem(segmentation) -> str:
    """Return a sentence with the unknown names of a segmentation; an empty string if there are none."""
    unknown = unknown_names(segmentation)
    if not unknown:
        return ""
    return _("Unknown segment names in {name}: {unknown}. Rename these segments, or choose their structures.").format(
        name=segmentation.GetName(), unknown=", ".join(f'"{text[:60]}"' for text in unknown)
    )


def refuse_unknown(segmentation) -> None:
    """Raise InputError with the unknown names: their voxels would become background without notice."""
    if sentence := problem(segmentation):
        raise InputError(sentence)


def _values(segmentation) -> list[tuple[str, str, int | None]]:
    """Return ID, name and label value of each segment: 0 for another organ or an ignored name, None if not known."""
    from crossmoda import structure_names

    content, names, entry = segmentation.GetSegmentation(), mapping(segmentation), vtk.mutable("")
    values = []
    for index in range(content.GetNumberOfSegments()):
        segment_id = content.GetNthSegmentID(index)
        segment = content.GetSegment(segment_id)
        entry.set("")
        segment.GetTag(slicer.vtkSegment.GetTerminologyEntryTagName(), entry)
        structure = structure_names.structure_of_segment(segment.GetName(), str(entry))
        values.append((segment_id, segment.GetName(), structure_names.value_of(segment.GetName(), structure, names)))
    return values


def _is_empty(segmentation, segment_id: str) -> bool:
    """Return whether a segment has no voxels; a segment that is a surface only is not empty."""
    image = slicer.vtkOrientedImageData()
    if not segmentation.GetBinaryLabelmapRepresentation(segment_id, image):
        return False
    return not image.GetNumberOfPoints() or not vtk_to_numpy(image.GetPointData().GetScalars()).any()


def state_algorithm(segmentation, is_corrected: bool) -> None:
    """State in the segments' DICOM tags how they were made, for any export as DICOM SEG."""
    import crossmoda

    content = segmentation.GetSegmentation()
    tags = {"Type": "SEMIAUTOMATIC" if is_corrected else "AUTOMATIC", "Name": f"CrossModa {crossmoda.__version__}"}
    for number in range(content.GetNumberOfSegments()):
        segment = content.GetNthSegment(number)
        for name, value in tags.items():
            stated = vtk.mutable("")
            if not segment.GetTag(f"DICOM.SegmentAlgorithm{name}", stated) or str(stated) != value:
                segment.SetTag(f"DICOM.SegmentAlgorithm{name}", value)
