"""One file per analysis of ``instructedit analyse``; the table is `instructedit.commands.analyse`."""
