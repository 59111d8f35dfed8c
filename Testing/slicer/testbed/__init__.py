"""A test bed made of real Slicer parts, without the Slicer application.

Real: the MRML scene, nodes, module logics, storage, displayable managers and the CLI engine (PyPI ``slicer-core``), and
``slicer.util``. Imitated, strictly: PythonQt over PySide6, the ctk and qMRML widgets of the panel, ``slicer.app``
and the few pure-Python parts of Slicer that are in no package. docs/developer.md says what it cannot show.
"""
