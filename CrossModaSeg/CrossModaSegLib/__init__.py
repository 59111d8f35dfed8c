"""The panel of CrossModa: one file per section, and the bridges between MRML nodes and the engine's files."""
