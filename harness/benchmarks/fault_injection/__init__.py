"""`make torture`: faults are injected into small real studies, and the promises of the harness are checked."""
