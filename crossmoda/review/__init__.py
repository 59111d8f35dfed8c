"""Review and correction of labels: which case first, where to look, helpers, the store, better models.

The loop: :func:`review_list` sorts the targets by how much a correction would help, :func:`find_regions` shows where,
:mod:`~crossmoda.review.operations` helps to correct, :mod:`~crossmoda.dataset.corrections` keeps the result where
training finds it, :mod:`~crossmoda.review.improvement` trains on, and :mod:`~crossmoda.review.cohort` reports.
"""

from crossmoda.dataset.results import label_to_review
from crossmoda.review.evidence_sources import expected_dice
from crossmoda.review.queue import Item, review_list
from crossmoda.review.regions import Region, doubt, find_regions
from crossmoda.review.settings import Settings

__all__ = ["Item", "Region", "Settings", "doubt", "expected_dice", "find_regions", "label_to_review", "review_list"]
