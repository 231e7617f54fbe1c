"""One file per command: a typed function whose flags and help are its signature and docstring."""
