"""The acceptance of a cluster: ``slurm/acceptance.sbatch`` runs it once; docs/acceptance.md says how to read it.

``python -m lightning_modules.acceptance`` in a job's script drives the phases, each an ``srun`` of real processes, and
remembers between starts of the job what has been done.
"""
