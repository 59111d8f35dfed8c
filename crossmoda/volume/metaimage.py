"""MetaImage headers beyond ITK's checks: an impossible NDims ends the whole process."""

from pathlib import Path

from crossmoda.errors import cannot_read

#: Bytes at the beginning of a file in which its header ends.
_HEADER = 1 << 16
#: Capacity of ITK's reader.
_MOST_DIMENSIONS, _LONGEST_LINE = 10, 4096


def is_metaimage(path: Path) -> bool:
    """Return whether the file name is that of a MetaImage file."""
    return path.name.lower().endswith((".mha", ".mhd"))


def check(path: Path) -> None:
    """Raise :class:`InputError` for a MetaImage file whose header ITK cannot parse.

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
    raise cannot_read(path, "damaged MetaImage header", "Copy or download the file again, or export it once more")


def _whole_number(words: list[bytes]) -> int:
    """Return the number of a list of one word, or 0."""
    return int(words[0]) if len(words) == 1 and words[0].isdigit() else 0
