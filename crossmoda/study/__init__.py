"""A whole study on many processes or machines: from a data set folder to noisy labels, a network, scores and a report.

The steps are those of the paper: validate, choose atlases, register all pairs, fuse noisy labels, train, predict,
evaluate, report. Each registration is a task of its own on Dask distributed, and each result lies on disk under its own
seal (:mod:`crossmoda.cache`): a worker's death loses the task at hand, which is done again elsewhere, and a study that
was stopped goes on where it stopped.

A study is described by a TOML file (:mod:`crossmoda.study.configuration`).
"""

from crossmoda.study.cluster import Settings as ClusterSettings
from crossmoda.study.configuration import Configuration, read_configuration
from crossmoda.study.outcome import Outcome
from crossmoda.study.plan import Plan, plan
from crossmoda.study.runner import run

__all__ = ["ClusterSettings", "Configuration", "Outcome", "Plan", "plan", "read_configuration", "run"]
