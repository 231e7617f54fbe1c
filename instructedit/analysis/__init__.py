"""The paper's analyses: what is collected from editors and runs, the numbers made of it, and the figures."""
