"""Prediction: from a scan and trained weights to a label map, probability maps and uncertainty on the scan's grid."""

from crossmoda.inference.prediction import Prediction, entropy, predict
from crossmoda.inference.prediction_files import (
    StoredPrediction,
    predict_all,
    predict_files,
)
from crossmoda.inference.probabilities import logits_of
from crossmoda.inference.settings import Settings

__all__ = [
    "Prediction",
    "Settings",
    "StoredPrediction",
    "entropy",
    "logits_of",
    "predict",
    "predict_all",
    "predict_files",
]
