"""Make the fork server ignore the signals that stop a study. The server imports this module before all others.

Only the coordinator may react to a signal to the process group. If the server ended first, the coordinator could not
start a worker, and would end with that error instead of the signal's exit code.
"""

from __future__ import annotations

import signal

for _name in ("SIGINT", "SIGTERM", "SIGHUP"):
    if hasattr(signal, _name):
        signal.signal(getattr(signal, _name), signal.SIG_IGN)
