"""Work outside the application's process: runs of CLI modules, calls of the engine."""
