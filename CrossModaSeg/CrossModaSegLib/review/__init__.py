"""Review and correction of labels."""
