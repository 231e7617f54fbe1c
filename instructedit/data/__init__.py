"""From examples to batches: tokenising, collating, paraphrasing, and the order in which records are drawn."""
