"""Small results that are kept for the user from run to run, by the content they depend on.

They lie in the folder of environment variable CROSSMODA_CACHE (empty: nothing is kept), else in the user's cache. They
are numbers without names. A file that is missing or damaged, or a folder that cannot be written, only means that the
work is done again; the oldest files go first.
"""

import contextlib
import functools
import hashlib
import os
import sys
from pathlib import Path
from typing import Any

import crossmoda
from crossmoda import output
from crossmoda.errors import InputError

VARIABLE = "CROSSMODA_CACHE"
#: So many results of each kind are kept at most; then the older half goes.
MOST_FILES = 4000


def folder() -> Path | None:
    """Return the folder of the kept results; None where nothing is kept."""
    if VARIABLE in os.environ:
        return Path(os.environ[VARIABLE]) if os.environ[VARIABLE] else None
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", "~")).expanduser() / "CrossModa" / "cache"
    if sys.platform == "darwin":
        return Path("~/Library/Caches/CrossModa").expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "crossmoda"


@functools.cache
def code_digest(*packages: str) -> str:
    """Return the digest of the source of packages of the engine: a changed program keeps other results."""
    root = Path(crossmoda.__file__).parent
    digest = hashlib.sha256(crossmoda.__version__.encode())
    for path in sorted(path for package in packages for path in (root / package).rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def recall(kind: str, key: str) -> Any:
    """Return a kept result (JSON types); None where there is none."""
    place = folder()
    if place is None:
        return None
    file = place / kind / f"{key}.json"
    try:
        content = output.read_json(file)
        os.utime(file)  # used last
    except (OSError, ValueError):
        return None
    return content


def keep(kind: str, key: str, content: Any) -> None:
    """Keep a result (JSON types) for the next run, if that is possible."""
    place = folder()
    if place is None:
        return
    with contextlib.suppress(InputError, OSError):
        output.write_json(place / kind / f"{key}.json", content)
        files = list((place / kind).glob("*.json"))
        if len(files) > MOST_FILES:
            for file in sorted(files, key=lambda file: file.stat().st_mtime)[: len(files) // 2]:
                file.unlink(missing_ok=True)
