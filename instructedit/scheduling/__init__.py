"""Handing commands to a scheduler, SLURM: scripts, profiles, submission, and what became of jobs. Loads no torch."""
