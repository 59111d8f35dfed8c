"""The Koos grade that the measures suggest (Koos et al. 1998, J Neurosurg 88:506); a reader confirms or corrects it.

I: within the canal; II: in the cerebellopontine angle, short of the brainstem; III: reaches the brainstem; IV:
displaces it. The brainstem is known by one point only, the entry of the nerve, so that contact is a guess: the grade is
never stated without the word "suggested".
"""

import dataclasses

from crossmoda.anatomy.ear_frame import EarFrame
from crossmoda.measurement.meatus import MeatalParts
from crossmoda.measurement.surface import face_centers
from crossmoda.volume.grid import Volume

#: A tumor within this distance of the brainstem reaches it; one that lies deeper displaces it, mm.
CONTACT_MM, DISPLACED_MM = 2.0, 4.0
#: A larger extrameatal tumor is grade IV, mm.
LARGEST_III_MM = 30.0


@dataclasses.dataclass(frozen=True)
class KoosSuggestion:
    """A suggested grade."""

    grade: str
    """I, II, III or IV"""
    reason: str

    def __str__(self) -> str:
        """Return the sentence for a report."""
        return f"Koos {self.grade} suggested: {self.reason}. Confirm it in the scan."


def gap_to_brainstem_mm(tumor: Volume, frame: EarFrame) -> float:
    """Return how far a tumor (bool) ends short of the brainstem; negative where it reaches deeper.

    It is measured in the ear's frame along the right-left axis, to the entry of the vestibulocochlear nerve.
    """
    lateral = frame.to_canonical(face_centers(tumor))[:, 0]
    entry = frame.to_canonical(frame.landmarks["brainstem_entry"][None])[0, 0]
    return float(lateral.min() - entry)


def suggest(parts: MeatalParts, gap_mm: float) -> KoosSuggestion:
    """Return the suggested grade of a tumor by its parts and its gap to the brainstem."""
    if parts.extrameatal is None:
        doubt = ", or II, for it may leave the canal" if parts.limits_mm[1] else ""
        return KoosSuggestion("I", f"the tumor ends within the internal auditory canal{doubt}")
    size_mm = parts.extrameatal.largest.length_mm
    size = f"{size_mm:.1f} mm extrameatal"
    if size_mm > LARGEST_III_MM:
        return KoosSuggestion("IV", f"{size}, more than {LARGEST_III_MM:.0f} mm")
    if gap_mm < -DISPLACED_MM:
        return KoosSuggestion("IV", f"{size}, {-gap_mm:.1f} mm beyond the usual surface of the brainstem")
    if gap_mm < CONTACT_MM:
        return KoosSuggestion("III", f"{size}, reaches the usual surface of the brainstem")
    return KoosSuggestion("II", f"{size}, about {gap_mm:.0f} mm short of the brainstem")
