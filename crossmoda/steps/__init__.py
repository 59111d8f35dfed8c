"""The steps of the work as their doors show them, one file per step.

A step declares its files, parameters and results once. The Slicer CLI module (arguments and XML), the options of the
``crossmoda`` command and docs/cli_reference.md are made from the declaration.
"""

from crossmoda.steps.declaration import File, Result, StepDeclaration

__all__ = ["File", "Result", "StepDeclaration"]
