"""Comparing runs: read from their directories or from Weights & Biases, shown as tables, files and a page of curves.

Loads no torch and no package of an extra before it is needed, so that runs on a laptop or a login node compare at once.
"""
