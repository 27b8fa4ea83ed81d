"""`make bench` and `make bench-search`: what the harness claims about time, measured.

A ratio in one run counts; an absolute time does not. Both sides train the same configurations with equal numbers.
What is timed, and what is not, stands in `reports/benchmarks/README.md`.
"""
