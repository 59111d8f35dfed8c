"""Compiled loops on all cores of the CPU; those in vector instructions work on raw addresses, here alone."""
