"""CrossModa: segmentation of the vestibular schwannoma and the cochlea across MR contrasts.

Labeled contrast-enhanced T1 atlases are registered to an unlabeled high-resolution T2 target with deeds, the
propagated labels are fused, and a DeepLab network on MIND-SSC features learns from both.

Arrays are ``(z, y, x)`` or ``(channel, z, y, x)``; lengths are in mm; physical space is ITK's LPS.
Importing this package imports nothing heavy; import the module you need (``from crossmoda import deeds``).
"""

__version__ = "0.2.0.dev0"
