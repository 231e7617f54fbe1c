"""Handing commands to a scheduler, SLURM: scripts, profiles, submission, and what became of jobs. Loads no torch."""

MAX_REQUEUES = "INSTRUCTEDIT_MAX_REQUEUES"
"""The variable that a job script of `submit` sets: how often its job may start again."""

ENDED = "INSTRUCTEDIT_ENDED"
"""Another one: the file that the program leaves when it has ended well; a training says so in its run directory."""
