"""One scan with its label, and a set of them."""

import dataclasses
from pathlib import Path

from crossmoda.anatomy import laterality
from crossmoda.dataset.case_id import safe_id
from crossmoda.dataset.label_reading import has_contours, read_label
from crossmoda.dataset.sequences import CET1, HRT2
from crossmoda.errors import InputError
from crossmoda.progress import Progress, report
from crossmoda.volume import Volume, read_scan

__all__ = ["CET1", "HRT2", "Case", "Dataset"]


@dataclasses.dataclass(frozen=True)
class Case:
    """One scan of a patient, with or without a label."""

    id: str
    """the patient or case, safe as the name of a folder; both modalities of a patient share it"""
    modality: str
    """``"ceT1"`` or ``"hrT2"``"""
    image: Path
    """image file, or the folder (or one file) of a DICOM series"""
    label: Path | None = None
    """label map, contour JSON or RTSTRUCT"""
    side: str | None = None
    """the patient's side of the tumor, ``"left"`` or ``"right"``; None if unknown"""

    def __post_init__(self) -> None:
        """Make the ID safe: results are written into a folder of its name."""
        object.__setattr__(self, "id", safe_id(self.id))

    def read_image(self) -> Volume:
        """Read the image (float32)."""
        return read_scan(self.image)

    def read_label(self, image: Volume | None = None) -> Volume:
        """Read the label as a label map (uint8, 1 VS, 2 cochlea).

        Contours are rasterized on the image's grid; segmentations that Slicer saved cropped are filled up to it.

        Args:
            image: the image; None reads it where its grid is needed.

        Raises:
            InputError: there is no label, or it cannot be read.

        """
        if self.label is None:
            raise InputError(f"The case has no label: {self.image}. Add a label or select a labeled case.")
        if image is None and has_contours(self.label):
            image = self.read_image()
        return read_label(self.label, None if image is None else image.grid)


@dataclasses.dataclass(frozen=True)
class Dataset:
    """The cases of a folder."""

    folder: Path
    cases: tuple[Case, ...]
    unpaired: tuple[Path, ...] = ()
    """labels and contours without an image"""
    notes: tuple[str, ...] = ()
    """what was passed over, and why: unknown names and series, unreadable folders"""

    @property
    def sources(self) -> tuple[Case, ...]:
        """The labeled ceT1 cases."""
        return tuple(case for case in self.cases if case.modality == CET1 and case.label is not None)

    @property
    def targets(self) -> tuple[Case, ...]:
        """The hrT2 cases."""
        return tuple(case for case in self.cases if case.modality == HRT2)

    def with_sides(self, progress: Progress | None = None) -> "Dataset":
        """Return the data set with the tumor side of every labeled case; every label is read."""
        cases = []
        for number, case in enumerate(self.cases):
            report(progress, number / len(self.cases), f"side of {case.id}")
            if case.side is None and case.label is not None:
                case = dataclasses.replace(case, side=laterality.tumor_side(case.read_label()))
            cases.append(case)
        return dataclasses.replace(self, cases=tuple(cases))
