"""Imported by the server that workers are forked from, before anything else: it then hears no signal that ends a study.

A signal to the process group is the coordinator's to answer. If the server went first, the coordinator would find
nobody to fork a worker, and end with that error instead of the signal's exit code.
"""

from __future__ import annotations

import signal

for _name in ("SIGINT", "SIGTERM", "SIGHUP"):
    if hasattr(signal, _name):
        signal.signal(getattr(signal, _name), signal.SIG_IGN)
