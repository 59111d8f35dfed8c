"""The panel; importing this package makes the engine importable (``import crossmoda``)."""

from CrossModaSegLib.engine import ensure_engine

ensure_engine()
