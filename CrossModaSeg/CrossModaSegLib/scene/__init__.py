"""The scene: nodes, cases, display, export."""
