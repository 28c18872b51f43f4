"""Metrics and suites; a report a person can look at."""
