"""Evaluation: metrics, the runner that asks the probes, intervals and tables."""
