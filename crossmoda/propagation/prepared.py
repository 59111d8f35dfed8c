"""Prepared atlases, kept in memory while one cohort is worked on: each is prepared once, not once per target."""

from collections.abc import Callable, Hashable

from crossmoda.volume import Volume

#: How many bytes are kept, at most: some 50 atlases around the ears.
_MOST_BYTES = 512 * 2**20


class Prepared:
    """Images by what they depend on.

    When there is no more room nothing is thrown out: every target comes round to the same atlases, and a later one in
    the place of an earlier one would be gone again when its turn came.
    """

    def __init__(self, most_bytes: int = _MOST_BYTES):
        """Begin empty."""
        self._kept: dict[Hashable, Volume] = {}
        self._room = most_bytes

    def get(self, key: Hashable, make: Callable[[], Volume]) -> Volume:
        """Return what is kept under ``key``, not to be changed, or make and keep it; threads may make it twice."""
        found = self._kept.get(key)
        if found is None:
            found = make()
            if found.array.nbytes <= self._room and self._kept.setdefault(key, found) is found:
                self._room -= found.array.nbytes
        return found
