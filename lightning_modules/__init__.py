"""The glue between ``instructedit`` and Lightning: Trainer, callbacks, loggers, strategies, their command line.

It imports the library; the library never imports it.
"""
