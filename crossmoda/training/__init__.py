"""Training of the network on labeled scans and noisy labels."""

from crossmoda.training.cases import TrainingCase, corrected_cases, noisy_cases
from crossmoda.training.routines import ROUTINES, Routine, routine
from crossmoda.training.settings import Settings
from crossmoda.training.train import BOARD, CHECKPOINT, METRICS, PREPARED, WEIGHTS, notes_of, train, train_folder

__all__ = [
    "BOARD",
    "CHECKPOINT",
    "METRICS",
    "PREPARED",
    "ROUTINES",
    "WEIGHTS",
    "Routine",
    "Settings",
    "TrainingCase",
    "corrected_cases",
    "noisy_cases",
    "notes_of",
    "routine",
    "train",
    "train_folder",
]
