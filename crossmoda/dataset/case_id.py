"""IDs of cases: from file names, and safe as names of folders."""

import hashlib
import re
from pathlib import Path

#: The endings of files of one volume, and of all images and labels.
VOLUME_ENDING = re.compile(r"(\.seg)?\.(nii|nrrd|nhdr|mha|mhd)(\.gz)?$", re.IGNORECASE)
ENDING = re.compile(rf"{VOLUME_ENDING.pattern}|\.dcm$", re.IGNORECASE)
#: Characters that a file name may not have on some system, that leave a folder, or that a terminal obeys.
_UNSAFE = re.compile(r'[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069/\\:*?"<>|]')
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
_LONGEST = 120


def id_of_file(path: Path) -> str:
    """Return the ID in a file name: all of it but the ending, so that UIDs and versions stay whole.

    Example:
        >>> id_of_file(Path("1.2.840.5.nii.gz")), id_of_file(Path("anna.seg.nrrd"))
        ('1.2.840.5', 'anna')

    """
    return ENDING.sub("", path.name) or path.name


def safe_id(text: str) -> str:
    """Return an ID that is one folder name on every system; a changed ID ends in a checksum, so that no two get alike.

    Example:
        >>> safe_id("P 1"), safe_id("12/345"), safe_id("../../x")
        ('P 1', '12_345-7c5b4a', '_.._x-9cdf6a')

    """
    safe = _UNSAFE.sub("_", text.strip()).strip(". ")
    is_long = len(safe.encode()) > _LONGEST
    if safe == text and safe and not is_long and not _RESERVED.fullmatch(safe) and not safe.startswith("-"):
        return text
    while len(safe.encode()) > _LONGEST:
        safe = safe[:-1]
    digest = hashlib.sha256(text.encode(errors="backslashreplace")).hexdigest()[:6]
    return f"{safe.lstrip('-') or 'unnamed'}-{digest}"
