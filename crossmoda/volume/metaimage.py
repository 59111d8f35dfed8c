"""What ITK leaves to be done about MetaImage files: a header with an impossible NDims ends the whole process."""

from pathlib import Path

from crossmoda.errors import InputError

#: The most of a file that is looked at for its header; more text than this comes before no image.
_HEADER = 1 << 16
#: ITK's reader has room for so many dimensions and such a long line.
_MOST_DIMENSIONS, _LONGEST_LINE = 10, 4096


def is_metaimage(path: Path) -> bool:
    """Whether the file's name says MetaImage."""
    return path.name.lower().endswith((".mha", ".mhd"))


def check(path: Path) -> None:
    """Raise :class:`InputError` for a MetaImage file whose header ITK cannot be given.

    Lists must have as many numbers as there are dimensions, and sizes must be positive.
    """
    with path.open("rb") as stream:
        text = stream.read(_HEADER)
    dimensions = 0
    for line in text.splitlines():
        key, _, value = line.replace(b":", b"=", 1).partition(b"=")
        name, words = key.strip(), value.split()
        if len(line) > _LONGEST_LINE:
            break
        if name == b"NDims":
            dimensions = _whole_number(words)
            if not 1 <= dimensions <= _MOST_DIMENSIONS:
                break
        elif name == b"DimSize" and (len(words) != dimensions or not all(_whole_number([word]) for word in words)):
            break
        elif name == b"ElementDataFile":
            return
    raise InputError(f"{path} has a damaged MetaImage header; copy or download the file again, or export it once more.")


def _whole_number(words: list[bytes]) -> int:
    """Return the one number there is, or 0."""
    return int(words[0]) if len(words) == 1 and words[0].isdigit() else 0
