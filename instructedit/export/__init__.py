"""Taking an edit out: a LoRA adapter for PEFT, a whole model for transformers, or the change of the weights alone.

Knows saved edits and file formats; nothing about how an edit was made.
"""
