"""Review and correction of labels, and improvement of models with corrections.

:func:`review_list` ranks the targets by expected benefit of a correction, :func:`find_regions` locates probable errors,
:mod:`~crossmoda.review.operations` edits label maps, :mod:`~crossmoda.dataset.corrections` stores corrections,
:mod:`~crossmoda.review.improvement` trains on them, and :mod:`~crossmoda.review.cohort_report` reports.
"""

from crossmoda.dataset.results import label_to_review
from crossmoda.review.evidence_sources import expected_dice
from crossmoda.review.queue import Item, review_list
from crossmoda.review.regions import Region, doubt, find_regions
from crossmoda.review.settings import Settings

__all__ = ["Item", "Region", "Settings", "doubt", "expected_dice", "find_regions", "label_to_review", "review_list"]
