"""Studies: from a data set folder to noisy labels, a network, scores and a report, on many processes or machines.

The steps follow the paper: validate, select atlases, register all pairs, fuse noisy labels, train, predict, evaluate,
report. Each registration is a Dask task, and each result is cached on disk (:mod:`crossmoda.cache`), so a study resumes
after the loss of a worker or an interruption. A TOML file describes the study (:mod:`crossmoda.study.configuration`).
"""

from crossmoda.study.configuration import Configuration, read_configuration
from crossmoda.study.outcome import StudyOutcome
from crossmoda.study.plan import Plan, plan
from crossmoda.study.runner import run
from crossmoda.study.settings import ClusterSettings

__all__ = ["ClusterSettings", "Configuration", "Plan", "StudyOutcome", "plan", "read_configuration", "run"]
