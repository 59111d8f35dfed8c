"""Names of structures in segmentations and contours: in clinics, collections and languages.

A name is split into words; sides, numbers and words without meaning here are dropped, and what remains must consist of
words of one structure. Whatever is neither a structure nor a known other organ is refused with the list of such names:
a tumor under an unknown name would become background without notice. :func:`map_names` and the file
``structure_names.json`` of a data set map them.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import Path

from crossmoda import labels, output
from crossmoda.errors import InputError, cannot_read
from crossmoda.labels import COCHLEA, STRUCTURES, VS, Structure

#: The file of a data set that maps names: ``{"Tumor old": "ignore", "Innenohr": "cochlea", "255": "VS"}``.
MAPPING_FILE = "structure_names.json"
IGNORE = "ignore"
#: Folders above a label in which a mapping is looked for.
_MOST_LEVELS = 6

_SIDES = (
    "left right lt rt l r li re links rechts linke rechte linker rechter linkes rechtes gauche droite droit g d "
    "izquierdo izquierda derecho derecha izq der sinistra sinistro destra destro sx dx sin dex dextra both bilateral"
)
_FILLERS = (
    "oar roi structure struct organ segment segmentation contour label mask seg t ce w tw volume volumen manual final "
    "residual rest remnant resttumor postop post op right the of and part primary prim main total whole gross p n"
)
_WORDS = {
    VS: "vs an tv tvt gtv gtvp gtvn tumor tumors tumeur tumore tumoren target neoplasm neoplasia lesion "
    "lasion laesion mass schwannoma schwannomas schwannom schwannome swannoma neuroma neurinoma neurinom neurinome "
    "akn vestibularisschwannom vestibularschwannoma vestibularschwannom akustikusneurinom acousticneuroma "
    "akustikusneurinoma kleinhirnbruckenwinkeltumor intrameatal extrameatal intracanalicular extracanalicular "
    "cisternal intrameatale extrameatale intrameataler extrameataler intrakanalikular vsintra vsextra",
    COCHLEA: "cochlea cochleae cochleas cochlear cochleal cochleart cochlealt cochlee cochlees coclea cocleas coclee "
    "kochlea schnecke horschnecke hoerschnecke caracol cochleaoar chiocciola",
}
#: Words that belong to a structure only beside one of its own words.
_BESIDE = {
    VS: "vestibular vestibularis vestibulaire vestibolare acoustic acoustique acustico akustikus nervus nerve intra "
    "extra solid cystic cyst zystisch kyste del dell du de nerf nervo",
    COCHLEA: "duct basal middle apical turn oar organ",
}
#: Organs and aids of planning that are neither structure.
_OTHERS = (
    "brainstem brain stem skull external extern body skin eye eyes lens lenses retina globe chiasm optic optical "
    "nerve nerves facial trigeminal cerebellum cerebrum pons medulla cord spinal ventricle ventricles bone "
    "mandible hippocampus pituitary artery carotid basilar sinus sigmoid ptv ctv itv ring isocenter "
    "frame fiducial fiducials couch marker markers dose plane air mastoid parotid temporal lobe modiolus men "
    "meningioma structures matrix box avoid hirnstamm gehirn kleinhirn auge augen linse sehnerv haut korper "
    "koerper tronc cerebral oeil tronco encefalico background hintergrund head patient "
)
#: Earlier volumes in the Vestibular-Schwannoma-SEG collection, such as "Vol2016CISS", "Vol 2.5y", "T1+ 13", "6m".
_EARLIER = re.compile(r"vol\s*\d[\w. ]*|t1\s*\+\s*\d+|\d+\s*m", re.IGNORECASE)

#: SNOMED CT codes of tumors and of the cochlea, in Slicer's terminologies.
_TUMOR_CODES = {"4147007", "86049000", "108369006", "52988006"}
_COCHLEA_CODES = {"80169004"}

_mapped: dict[str, str] = {}


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


_SKIPPED = _set(_SIDES) | _set(_FILLERS)
_CORE = {value: _set(words) for value, words in _WORDS.items()}
_ALLOWED = {value: _CORE[value] | _set(words) for value, words in _BESIDE.items()}
_OTHER_WORDS = _set(_OTHERS)
_BY_VALUE = {structure.value: structure for structure in STRUCTURES}
_BY_KEY = {structure.key.casefold(): structure for structure in STRUCTURES}


def words_of(name: str) -> list[str]:
    """Return the words of a name: no accents, lower case, split at separators, digits and capitals.

    Example:
        >>> words_of("GTV-T1_Cochlée2")
        ['gtv', 't', 'cochlee']

    """
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    plain = unicodedata.normalize("NFKD", name.replace("ß", "ss")).encode("ascii", "ignore").decode().casefold()
    return re.findall(r"[a-z]+", re.sub("tumou?r", "tumor", plain))


def structure_of_name(name: str) -> Structure | None:
    """Return the structure of a segment or contour name, or None.

    Example:
        >>> [structure_of_name(name).key for name in ("Left cochlea", "AN", "Akustikusneurinom", "GTV_VS", "VS 2")]
        ['cochlea', 'VS', 'VS', 'VS', 'VS']
        >>> structure_of_name("brainstem")

    """
    if _EARLIER.fullmatch(name.strip()):
        return None
    words = [word for word in words_of(name) if word not in _SKIPPED]
    # "AN L" and "Vestibular Schwannoma" also as one word, as in names without separators.
    for value, core in _CORE.items():
        if words and set(words) <= _ALLOWED[value] and core & set(words):
            return _BY_VALUE[value]
    joined = "".join(words_of(name))
    return next((_BY_VALUE[value] for value, core in _CORE.items() if joined in core), None)


def is_other_organ(name: str) -> bool:
    """Return whether a name is known to be neither structure, such as brainstem or an earlier volume."""
    words = [word for word in words_of(name) if word not in _SKIPPED]
    return bool(_EARLIER.fullmatch(name.strip())) or (bool(words) and set(words) <= _OTHER_WORDS)


def structure_of_terminology(entry: str) -> Structure | None:
    """Return the structure of the codes of a Slicer terminology entry, or None.

    The codes of tumors in general (neoplasm, mass, lesion) count as the tumor: a data set of this field has one kind.
    """
    kind, region = _code(entry, 2), _code(entry, 5)
    if {kind, region} & _COCHLEA_CODES:
        return _BY_VALUE[COCHLEA]
    return _BY_VALUE[VS] if kind in _TUMOR_CODES else None


def _code(entry: str, field: int) -> str:
    """Return a code of a terminology entry: field 1 is the category, 2 the type, 5 the region."""
    fields = entry.split("~")
    return [*fields[field].split("^"), "", ""][1] if len(fields) > field else ""


def structure_of_segment(name: str, terminology: str) -> Structure | None:
    """Return the structure of a segment: by the codes of its terminology, else by its name.

    A code that only says "tumor" does not decide about a segment named after something else, such as a meningioma.
    """
    by_code, by_name = structure_of_terminology(terminology), structure_of_name(name)
    if by_code is None or by_name is not None or re.fullmatch(r"segment[_ ]?\d*", name, re.IGNORECASE):
        return by_code or by_name
    is_specific = terminology == by_code.terminology or by_code.value == COCHLEA or _code(terminology, 5) == "361078006"
    return by_code if is_specific else None


def value_of(name: str, structure: Structure | None, mapping: Mapping[str, str]) -> int | None:
    """Return the label value of a name: 0 for another organ or an ignored name, None if the name is not known.

    Args:
        name: the name in the file.
        structure: its structure by terminology or name.
        mapping: structure key, or ``"ignore"``, by name; :func:`map_names` comes first.

    """
    for known in (_mapped, mapping):
        key = next((key for text, key in known.items() if text.casefold() == name.casefold()), None)
        if key is not None:
            return labels.BACKGROUND if key == IGNORE else _BY_KEY[key.casefold()].value
    if structure is not None:
        return structure.value
    return labels.BACKGROUND if is_other_organ(name) else None


def refuse_unknown(names: Iterable[str], path: object) -> None:
    """Raise :class:`InputError` with the unknown names of a file, and with the way to map them."""
    unknown = list(dict.fromkeys(names))
    if unknown:
        keys = ", ".join([*(structure.key for structure in STRUCTURES), IGNORE])
        shown = ", ".join(f'"{name[:60]}"' for name in unknown[:10]) + (" ..." if len(unknown) > 10 else "")
        raise cannot_read(
            path,
            f"unknown structure names: {shown}",
            f"Map each to {keys}: --structure NAME=KEY, or {MAPPING_FILE} in the folder of the data set",
        )


def map_names(pairs: Iterable[str]) -> None:
    """Map names for the rest of the process.

    Args:
        pairs: ``NAME=KEY`` each, where KEY is a structure key or ``ignore``.

    Raises:
        InputError: a pair is not of this form.

    """
    mapping = {}
    for pair in pairs:
        name, sign, key = pair.rpartition("=")
        if not sign or not name:
            raise InputError(f"Not a mapping: {pair}. Write NAME=KEY, such as GTV2=VS.")
        mapping[name] = key
    _mapped.update(_checked(mapping, "--structure"))


def mapping_for(label: Path | str) -> dict[str, str]:
    """Return the mapping of a label's names: of ``structure_names.json`` in the nearest folder above it, if any.

    Raises:
        InputError: the file is not a mapping.

    """
    folders = list(Path(label).absolute().parents)[:_MOST_LEVELS]
    path = next((folder / MAPPING_FILE for folder in folders if (folder / MAPPING_FILE).is_file()), None)
    if path is None:
        return {}
    try:
        content = output.read_json(path)
        if not isinstance(content, dict) or not all(isinstance(key, str) for key in content.values()):
            raise ValueError("not a mapping")
    except (OSError, ValueError, RecursionError) as cause:
        raise cannot_read(path, "not a mapping of names", 'Write {"NAME": "VS"}') from cause
    return _checked(content, path)


def _checked(mapping: Mapping[str, str], source: object) -> dict[str, str]:
    for name, key in mapping.items():
        if key != IGNORE and key.casefold() not in _BY_KEY:
            keys = ", ".join([*(structure.key for structure in STRUCTURES), IGNORE])
            raise InputError(f"Unknown structure for {name} in {source}: {key[:40]}. Use one of {keys}.")
    return dict(mapping)


def mapped_values(mapping: Mapping[str, str]) -> dict[int, int]:
    """Return the label value by the value in files, of the names that are numbers: ``255=VS``."""
    pairs = {**mapping, **_mapped}
    known = ((name, value_of(name, None, mapping)) for name in pairs if name.isdigit() and int(name) < 256)
    return {int(name): value for name, value in known if value is not None}
