"""Digital subjects: a phantom of the head with a vestibular schwannoma, scanned with ceT1 and hrT2, and the truth
about it.
"""

from crossmoda.simulation.dataset import simulate_dataset
from crossmoda.simulation.subject import Settings, Subject, simulate_subject, true_displacement, true_points

__all__ = ["Settings", "Subject", "simulate_dataset", "simulate_subject", "true_displacement", "true_points"]
