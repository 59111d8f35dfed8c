"""The parts of the panel, one class per file."""
