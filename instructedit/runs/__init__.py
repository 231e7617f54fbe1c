"""A run on disk: its directory, its progress, its jobs. Files only: nothing here loads torch, Lightning or W&B."""
