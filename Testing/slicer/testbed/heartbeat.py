"""How long the panel's thread is busy between two looks at events."""

import time

from PySide6 import QtCore


class Heartbeat:
    """Measures how much processor time the panel's thread spends without looking at events."""

    def __init__(self):
        self.beats, self.longest_s, self._last = 0, 0.0, time.thread_time()
        self._timer = QtCore.QTimer()
        self._timer.timeout.connect(self._beat)
        self._timer.start(5)

    def _beat(self):
        now = time.thread_time()
        self.beats += 1
        self.longest_s, self._last = max(self.longest_s, now - self._last), now
