"""The EM algorithm of STAPLE: statements of raters, grouped so that EM over many raters is a few matrix products.

A rater's statement at a voxel is the set of labels it allows, as bits: one bit for its label; several where
its background does not exclude a structure; all outside its field of view. Voxels with the same statements of all
raters share a *pattern* (pattern, rater).
"""

import functools
from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from crossmoda.volume.masks import bounding_box

#: The smallest probability that enters a logarithm.
FLOOR = 1e-6
#: The number of the lowest set bit of each byte; 0 without a set bit.
_LOWEST_BIT = np.array([0] + [(byte & -byte).bit_length() - 1 for byte in range(1, 256)], np.uint8)
#: Parts of the region with at most this many voxels are no site of a structure.
_SPECKLE = 30


class Statements:
    """The raters' statements in the region of disagreement, and the posterior there."""

    def __init__(
        self,
        maps: Sequence[np.ndarray],
        missing: Sequence[np.ndarray | int],
        weights: np.ndarray,
        values: Sequence[int],
        margin: int,
        region: np.ndarray | None = None,
    ):
        """Collect the statements of label maps (z, y, x), uint8.

        Args:
            maps: one per rater; only ``values`` occur.
            missing: per rater, bits as :func:`crossmoda.fusion.staple` takes them.
            weights: of each rater, 0 to 1.
            values: label values, background first.
            margin: width of the estimated rim around the disagreement, voxels.
            region: mask of further estimated voxels, (z, y, x) bool, whether raters disagree there or not.

        """
        self.values, self.weights, self.shape = values, weights, maps[0].shape
        self.label_count, self.rater_count = len(values), len(maps)
        index_of = np.zeros(256, np.uint8)
        index_of[list(values)] = np.arange(len(values))
        statements = [
            _statement(label_map, bits, index_of, len(values)) for label_map, bits in zip(maps, missing, strict=True)
        ]
        weighted = [statement for statement, weight in zip(statements, weights, strict=True) if weight > 0]
        possible = functools.reduce(np.bitwise_and, weighted)
        #: (z, y, x) uint8: the first label that all statements allow; the background where they disagree
        self.consensus = np.asarray(values, np.uint8)[_LOWEST_BIT[possible]]
        differs = possible == 0
        self.box, self.region = _region(differs if region is None else differs | region, margin)
        self._agreed_index = index_of[self.consensus[self.box]]
        voxels = np.flatnonzero(self.region)
        self.count = len(voxels)
        sites, self.site_count = _sites(self.region, self._agreed_index)
        outside = ~self.region
        #: (site, label): number of voxels at each site outside the region, where all agree
        self.agreed = np.bincount(
            sites[outside].astype(int) * len(values) + self._agreed_index[outside],
            minlength=self.site_count * len(values),
        ).reshape(self.site_count, len(values))
        stated = np.stack([statement[self.box].ravel()[voxels] for statement in statements])
        patterns, self.pattern_of = _group(np.concatenate([sites[self.region][None], stated]))
        #: the site (connected part of the region) of each pattern
        self.site_of, patterns = patterns[:, 0].astype(int), patterns[:, 1:]
        self.sizes = np.bincount(self.pattern_of, minlength=len(patterns)).astype(np.float32)
        sets, codes = np.unique(patterns, return_inverse=True)
        #: (set, label): the labels that each statement allows
        self.allows = ((sets[:, None] >> np.arange(len(values))) & 1).astype(np.float32)
        #: whether a statement names one label
        self.single = self.allows.sum(axis=1) == 1
        #: (set, label): whether a statement decides about a label: names it or excludes it
        self.decides = 1.0 - self.allows * ~self.single[:, None]
        columns = np.arange(len(maps)) * len(sets) + codes.reshape(patterns.shape)
        self._one_hot = np.zeros((len(patterns), len(maps) * len(sets)), np.float32)
        np.put_along_axis(self._one_hot, columns, 1.0, axis=1)
        #: (pattern, label): frequency of each label among the raters that decide about it
        self.frequency = self._frequencies()
        self.volume_bias = np.zeros((self.site_count, len(values)), np.float32)

    def _frequencies(self) -> np.ndarray:
        named = self.single[:, None] * self.allows
        votes = self._sum_over_raters(np.repeat(named[None], self.rater_count, axis=0))
        voters = self._sum_over_raters(np.repeat(self.decides[None], self.rater_count, axis=0))
        votes[:, 1:] /= np.maximum(voters[:, 1:], FLOOR)
        votes[:, 0] = np.maximum(1.0 - votes[:, 1:].sum(axis=1), 0.0)
        return votes / np.maximum(votes.sum(axis=1, keepdims=True), FLOOR)

    def _sum_over_raters(self, per_rater: np.ndarray) -> np.ndarray:
        """Sum a quantity (rater, set, label) over the statements of each pattern, weighted by rater."""
        weighted = self.weights[:, None, None] * per_rater
        return self._one_hot @ weighted.reshape(-1, self.label_count).astype(np.float32)

    def use_prior(self, prior: str, sigma: float, smoothness: float) -> None:
        """Set the prior (``"local"`` or ``"global"``) and initialize the posterior with the raters' frequencies.

        The posterior has one row per voxel where priors or neighbors differ between voxels, else one per pattern.
        """
        self.smoothness = smoothness
        self.by_voxel = prior == "local" or smoothness > 0
        self.posterior = self.frequency[self.pattern_of] if self.by_voxel else self.frequency
        if prior == "local":
            probability = self._smoothed(self.frequency[self.pattern_of], sigma)
        else:
            probability = np.average(self.frequency, axis=0, weights=self.sizes)[None]
        self._log_prior = np.log(np.maximum(probability, FLOOR)).astype(np.float32)

    def use_posterior(self, posterior: np.ndarray) -> None:
        """Set a known posterior, (label, z, y, x)."""
        self.by_voxel = True
        self.posterior = np.stack([part[self.box][self.region] for part in posterior], axis=1)

    def _in_box(self, rows: np.ndarray) -> np.ndarray:
        """Put values (voxel of the region, label) on the box (label, z, y, x); agreed labels fill the rest."""
        full = np.stack([(self._agreed_index == label).astype(np.float32) for label in range(self.label_count)])
        full[:, self.region] = rows.T
        return full

    def _smoothed(self, rows: np.ndarray, sigma: float) -> np.ndarray:
        if sigma == 0:
            return rows
        smooth = [ndimage.gaussian_filter(part, sigma, mode="nearest", truncate=2.5) for part in self._in_box(rows)]
        return np.stack([part[self.region] for part in smooth], axis=1)

    def _neighbors(self) -> np.ndarray:
        """Sum the posterior over the six neighbors (mean field of the Potts model): (voxel, label)."""
        cross = ndimage.generate_binary_structure(3, 1).astype(np.float32)
        cross[1, 1, 1] = 0
        sums = [ndimage.convolve(part, cross, mode="nearest") for part in self._in_box(self.posterior)]
        return np.stack([part[self.region] for part in sums], axis=1)

    def likelihood(self, confusion: np.ndarray) -> np.ndarray:
        """Return the probability of each statement, (rater, set, true), given confusion matrices of the raters."""
        return np.einsum("sj,rjt->rst", self.allows, confusion)

    def update_posterior(self, confusion: np.ndarray) -> None:
        """E step: the probability of each label, given the confusion matrices (rater, stated, true)."""
        log_likelihood = self._sum_over_raters(np.log(np.maximum(self.likelihood(confusion), FLOOR)))
        log_likelihood += self.volume_bias[self.site_of]
        logits = (log_likelihood[self.pattern_of] if self.by_voxel else log_likelihood) + self._log_prior
        if self.smoothness > 0:
            logits = logits + self.smoothness * self._neighbors()
        logits -= logits.max(axis=1, keepdims=True)
        np.exp(logits, out=logits)
        self.posterior = logits / logits.sum(axis=1, keepdims=True)

    def _over_voxels(self, rows: np.ndarray) -> np.ndarray:
        """Sum rows like those of :attr:`posterior` over the voxels of each pattern: (pattern, label)."""
        if not self.by_voxel:
            return rows * self.sizes[:, None]
        columns = [np.bincount(self.pattern_of, column, len(self.sizes)) for column in rows.T]
        return np.stack(columns, axis=1).astype(np.float32)

    def mass(self) -> np.ndarray:
        """Return the number of voxels of each label in each pattern: (pattern, label)."""
        return self._over_voxels(self.posterior)

    def counts(self, mass: np.ndarray | None = None, patterns: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Return the number of voxels with each statement of each rater and each true label: (rater, set, true)."""
        mass = self.mass() if mass is None else mass
        return (self._one_hot[patterns].T @ mass[patterns]).reshape(self.rater_count, -1, self.label_count)

    def estimate_confusion(self, confusion: np.ndarray, prior: np.ndarray) -> np.ndarray:
        """M step: confusion matrices (rater, stated, true) from the posterior.

        Statements that allow several labels are distributed among them by ``confusion``, the current estimate; the
        ``prior`` (stated, true), in pseudo-voxels, is added to the counts of each rater.
        """
        per_set = self.counts() / np.maximum(self.likelihood(confusion), FLOOR)
        expected = confusion * np.einsum("sj,rst->rjt", self.allows, per_set) + prior
        return expected / np.maximum(expected.sum(axis=1, keepdims=True), FLOOR)

    def balance_volumes(self) -> float:
        """Shift the prior of structures whose fused volume leaves the middle half of the raters' volumes.

        EM takes displaced copies of a small structure for insensitive, perfectly specific raters of a large one; the
        volumes of the copies prevent that. Each site (the left and the right cochlea) is balanced by itself, with the
        raters that contribute there. Returns the largest log ratio by which a structure was outside.
        """
        mass = self.mass()
        slopes = self._over_voxels(self.posterior * (1 - self.posterior))  # d volume / d bias
        worst = 0.0
        for site in range(self.site_count):
            patterns = np.flatnonzero(self.site_of == site)
            counts = self.counts(mass, patterns)
            for label in range(1, self.label_count):
                names = self.single & (self.allows[:, label] == 1)
                labeled = counts[:, names].sum(axis=(1, 2)) + self.agreed[site, label]
                fused = counts[:, :, label] @ self.decides[:, label] + self.agreed[site, label]
                decided = counts.sum(axis=2) @ self.decides[:, label] / max(self.sizes[patterns].sum(), 1)
                contributes = (decided > 0.5) & (self.weights > 0)
                if not contributes.any() or fused.max() < 0.5:
                    continue
                ratio = (labeled[contributes] + 0.5) / (fused[contributes] + 0.5)
                low, high = np.quantile(ratio, (0.25, 0.75))
                outside = np.log(low if low > 1 else high if high < 1 else 1.0)
                step = outside * fused.max() / max(slopes[patterns, label].sum(), 1.0)  # Newton's
                self.volume_bias[site, label] += np.clip(step, -2.0, 2.0)
                worst = max(worst, abs(outside))
        return worst


def _statement(label_map: np.ndarray, missing: np.ndarray | int, index_of: np.ndarray, label_count: int) -> np.ndarray:
    """Return the labels that a label map allows at each voxel, as bits (see :func:`crossmoda.fusion.staple`)."""
    table = (1 << index_of).astype(np.uint8).tobytes()
    statement = np.frombuffer(bytearray(label_map.tobytes().translate(table)), np.uint8).reshape(label_map.shape)
    if np.any(missing):
        bits = np.asarray(missing, np.uint8)
        statement |= np.where(statement == 1, bits, 0).astype(np.uint8)
        statement[np.broadcast_to((bits & 1) != 0, statement.shape)] = (1 << label_count) - 1
    return statement


def _region(differs: np.ndarray, margin: int) -> tuple[tuple[slice, ...], np.ndarray]:
    """Return the box of the estimate and, inside it, the mask of the disagreement with its margin."""
    if not differs.any():
        return tuple(slice(0, 1) for _ in differs.shape), np.zeros(tuple(1 for _ in differs.shape), bool)
    box = bounding_box(differs, margin + 4)  # with agreed labels for the smoothing of the prior and for the neighbors
    region = differs[box].view(np.uint8)
    for axis, length in enumerate(region.shape):
        region = ndimage.maximum_filter1d(region, 2 * min(margin, length) + 1, axis=axis, mode="constant")
    return box, region.astype(bool)


def _sites(region: np.ndarray, agreed: np.ndarray) -> tuple[np.ndarray, int]:
    """Return the connected parts labeled by any rater, numbered from 0, as uint8, and their number.

    Small parts (speckle) and those beyond 255 parts are together part 0.
    """
    parts, count = ndimage.label(region | (agreed > 0))
    sizes = np.bincount(parts.ravel(), minlength=count + 1)
    sizes[0] = 0
    large = np.argsort(-sizes, kind="stable")[:254]
    large = np.sort(large[sizes[large] > _SPECKLE])
    number = np.zeros(count + 1, np.uint8)
    number[large] = np.arange(1, len(large) + 1)
    return number[parts], len(large) + 1


def _group(stated: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the distinct columns of ``stated`` (rater, voxel) as rows, and the row of each voxel.

    Columns are compared by a code (Zobrist hashing), which is checked.
    """
    table = np.random.default_rng(0).integers(0, 2**63, (len(stated), 256), np.uint64)
    code = np.zeros(stated.shape[1], np.uint64)
    for rater, statements in enumerate(stated):
        code ^= table[rater][statements]
    _, first, pattern_of = np.unique(code, return_index=True, return_inverse=True)
    patterns = np.ascontiguousarray(stated[:, first].T)
    if not np.array_equal(patterns.T[:, pattern_of], stated):  # two columns with one code: practically never
        patterns, pattern_of = np.unique(stated.T, axis=0, return_inverse=True)
    return patterns, pattern_of.reshape(-1)
