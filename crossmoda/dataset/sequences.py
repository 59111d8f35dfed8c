"""The kind of a DICOM series: ceT1, hrT2 or neither, by its attributes first and its words second."""

import re
from typing import Any

#: Which kinds the doors use; the names are those of :mod:`crossmoda.dataset.case`.
CET1, HRT2 = "ceT1", "hrT2"

_OTHER_SEQUENCES = re.compile(
    r"flair|dark[ _-]?fluid|tirm|stir|dwi|diff|dti|adc|trace|\bep2d|epi\b|b\d{3,4}\b|hemo|haem|t2 ?\*|t2[ _-]?star|"
    r"swi|swan|fl2d|localizer|localiser|\bloc\b|scout|survey|3-?pl|haste|tof|angio|\bmra\b|mrv|perf|\basl\b|bold|fmri|phoenix|"
    r"report|screen|segmentation|subtract|\bsub\b|spectro|\bpd\b|calib|shim|field ?map"
)
_T2 = re.compile(
    r"(?<![a-z0-9])t2|ciss|ci3d|fiesta|drive|\bspace|cube|vista|b[ _-]?ffe|btfe|balanced|true ?fisp|trufi|fiesta|t2w|"
    r"st2w|sampled|3d[ _-]?tse"
)
_T1 = re.compile(r"(?<![a-z0-9])t1|mp[ _-]?rage|mprage|bravo|spgr|vibe|thrive|\btfe|t1w|flash|lava|\bgd\b|gadol")
_CONTRAST = re.compile(
    r"\bgd|gd\b|gado|\bkm\b|[+] ?c\b|\bc\+|\bce\b|cet1|post|contrast|dotarem|prohance|[+]gd|t1c|injected|inj\b"
)
_NATIVE = re.compile(r"\bpre\b|nativ|ohne|without|\bnon\b|\bw/?o\b|sans|senza|\bsin\b|unenhanced|plain|[-] ?c\b")
#: hrT2 has thin slices, mm: thicker ones cannot show a cochlea.
_THICKEST_HRT2_MM = 3.0
#: Inversion time from which on a T2 is a FLAIR, ms; echo time from which on a spin echo is T2 weighted, ms.
_FLAIR_TI_MS, _T2_TE_MS, _T1_TE_MS, _T1_TR_MS = 1500.0, 60.0, 30.0, 1000.0


def kind_of(header: Any, description: str) -> str | None:
    """Return ``"ceT1"``, ``"hrT2"`` or None for the series of a DICOM header.

    Args:
        header: the attributes of one of its slices.
        description: the SeriesDescription.

    Example:
        >>> [kind_of({}, text) for text in ("t2_space_tra_mpr", "t1_mpr_tra gd", "AX T2 FLAIR", "T1 pre")]
        ['hrT2', 'ceT1', None, None]

    """
    modality = str(header.get("Modality", "MR") or "MR")
    image_type = {str(value).upper() for value in header.get("ImageType") or ()}
    if modality != "MR" or image_type & {"LOCALIZER", "ADC", "DIFFUSION", "SUBTRACTION", "PROJECTION IMAGE"}:
        return None
    names = ("SequenceName", "PulseSequenceName", "ProtocolName", "ScanOptions")
    plain = re.sub(r"[_/.]+", " ", description.casefold())
    technical = re.sub(r"[_/.*]+", " ", " ".join(str(header.get(name, "") or "") for name in names).casefold())
    inversion, echo, repetition, thickness = (
        _number(header, name) for name in ("InversionTime", "EchoTime", "RepetitionTime", "SliceThickness")
    )
    if _OTHER_SEQUENCES.search(plain) or (echo >= _T2_TE_MS and inversion >= _FLAIR_TI_MS):
        return None
    has_agent = bool(str(header.get("ContrastBolusAgent", "") or "").strip())
    for words in (plain, technical):
        if _T2.search(words):
            return None if thickness > _THICKEST_HRT2_MM or _thick(plain) else HRT2
        if _T1.search(words) or (re.search(r"\bmpr\b", words) and has_agent):
            return None if _NATIVE.search(words) and not has_agent else CET1
    if echo >= _T2_TE_MS and repetition >= _T1_TR_MS and 0 < thickness <= _THICKEST_HRT2_MM:
        return HRT2
    is_t1 = 0 < echo < _T1_TE_MS and 0 < repetition < _T1_TR_MS
    return CET1 if is_t1 and (has_agent or _CONTRAST.search(plain)) else None


def _thick(words: str) -> bool:
    """Return whether a description names thick slices, such as ``5mm``."""
    sizes = [float(size) for size in re.findall(r"(\d+(?: \d+)?)\s*mm\b", words.replace(".", " ")) if " " not in size]
    return bool(sizes) and min(sizes) > _THICKEST_HRT2_MM


def _number(header: Any, name: str) -> float:
    try:
        return float(header.get(name) or 0.0)
    except (TypeError, ValueError):
        return 0.0
