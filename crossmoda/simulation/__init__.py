"""Simulation of digital subjects: heads with a vestibular schwannoma, their ceT1 and hrT2 scans, and the truth."""

from crossmoda.simulation.dataset import simulate_dataset
from crossmoda.simulation.settings import Settings
from crossmoda.simulation.subject import Subject, simulate_subject, true_displacement, true_points

__all__ = ["Settings", "Subject", "simulate_dataset", "simulate_subject", "true_displacement", "true_points"]
