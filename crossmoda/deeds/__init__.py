"""deeds: dense displacement sampling on a minimum spanning tree, with self-similarity context.

The registration of M. P. Heinrich and colleagues, linear and deformable, in physical space:

- MRF-Based Deformable Registration and Ventilation Estimation of Lung CT. IEEE TMI 2013.
- Towards Realtime Multimodal Fusion for Image-Guided Interventions Using Self-Similarities. MICCAI 2013.
- Multi-modal Multi-Atlas Segmentation using Discrete Optimization and Self-Similarities. VISCERAL Challenge 2015.
"""

from crossmoda.deeds.registration import center_alignment, register
from crossmoda.deeds.settings import Settings
from crossmoda.deeds.transform import Registration, load

__all__ = ["Registration", "Settings", "center_alignment", "load", "register"]
