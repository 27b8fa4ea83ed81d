"""Measurements of the harness itself: its speed, its verdicts' error rates, and what a study survives.

Only ratios within one run are compared, not absolute times. The harness and the baseline loop train the same
configurations to equal losses. `reports/benchmarks/README.md` says what is timed and what is not.
"""
