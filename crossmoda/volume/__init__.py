"""Volumes in physical space: grids, reading and writing files, resampling, verbs of masks."""

from crossmoda.volume.grid import Box, Grid, Volume
from crossmoda.volume.reading import read, read_label_map, read_mask, read_scan, read_typed_scan
from crossmoda.volume.resampling import resample
from crossmoda.volume.segmentation_file import write_segmentation
from crossmoda.volume.writing import write

__all__ = [
    "Box",
    "Grid",
    "Volume",
    "read",
    "read_label_map",
    "read_mask",
    "read_scan",
    "read_typed_scan",
    "resample",
    "write",
    "write_segmentation",
]
