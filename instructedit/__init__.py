"""Knowledge editing for frozen language models with one meta-trained editor.

The library: torch and transformers, and nothing of Lightning or W&B. Importing this package loads none of them;
take what you need from its modules (the file map is in README.md).
"""

__version__ = "0.1.0"
