"""Pseudonyms of cases: keyed hashes of their IDs, with a secret key in the folder of the data.

Where the folder of a file, or one above it, has a key, every command and the panel use pseudonyms for its cases: one
patient has the same pseudonym in all results, and nobody without the key can tell whether a pseudonym is of a given ID.
The images themselves are not changed.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable
from pathlib import Path

from crossmoda import output
from crossmoda.errors import InputError, cannot_read, reason_of

#: The file with the key.
KEY_FILE = "pseudonym_key.txt"
#: Folders above a file in which a key is looked for, and digits of a pseudonym: among 10,000 cases two are alike with
#: a probability of 5e-5.
_MOST_LEVELS, _DIGITS = 6, 10


def key_for(path: Path | str) -> str | None:
    """Return the key that applies to a file or folder; None if there is none.

    Raises:
        InputError: the key cannot be read, so that IDs would be shown.

    """
    start = Path(path).absolute()
    for folder in [start, *start.parents][: _MOST_LEVELS + 1]:
        file = folder / KEY_FILE
        try:
            if file.is_symlink() or file.exists():
                return _checked(file.read_text("utf-8"), file)
        except (OSError, UnicodeDecodeError) as cause:
            raise cannot_read(file, reason_of(cause), "Make the key of the pseudonyms readable") from cause
    return None


def _checked(text: str, file: Path) -> str:
    if not re.fullmatch(r"[0-9a-f]{32,}", text.strip()):
        raise cannot_read(file, "not a key of pseudonyms", "Restore it; with another key every pseudonym changes")
    return text.strip()


def pseudonym(case_id: str, path: Path | str) -> str:
    """Return the pseudonym of a case whose image is at ``path``; the ID itself where no key applies."""
    key = key_for(path)
    if key is None:
        return case_id
    return "P-" + hmac.new(bytes.fromhex(key), case_id.encode(), hashlib.sha256).hexdigest()[:_DIGITS]


def create_key(folders: Iterable[Path | str]) -> None:
    """Write one new key into all folders without a key; folders that share one keep it.

    Raises:
        InputError: two folders have different keys, a folder has corrections under IDs, or it cannot be written.

    """
    places = [Path(folder) for folder in folders]
    keys = {place: key_for(place) for place in places}
    present = {key for key in keys.values() if key is not None}
    if len(present) > 1:
        raise InputError(f"Different keys of pseudonyms: {places[0]}, {places[-1]}. Copy {KEY_FILE} of one folder.")
    key = present.pop() if present else secrets.token_hex(16)
    for place in [place for place in places if keys[place] is None]:
        if any(place.glob("corrections/*/correction.json")):
            raise InputError(f"Corrections under IDs: {place}. Pseudonymize before the review, or rename them.")
        output.write_text(place / KEY_FILE, key + "\n")


def shown_name(path: Path | str) -> str:
    """Return the name of an input file for a record: its own, or only its ending where pseudonyms are used."""
    path = Path(path)
    if key_for(path) is None:
        return path.name
    return "file" + "".join(re.findall(r"\.(?:seg|nii|nrrd|mha|mhd|nhdr|dcm|gz|json|safetensors)(?=\.|$)", path.name))


def without_files(text: str, files: Iterable[Path | str | None]) -> str:
    """Return a text in which the paths and names of files are replaced where pseudonyms are used."""
    for path in [Path(file) for file in files if file is not None]:
        if key_for(path) is not None:
            for part in (str(path), str(path.parent), path.name):
                text = text.replace(part, shown_name(path))
    return text
