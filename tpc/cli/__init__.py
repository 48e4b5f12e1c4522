"""The commands of `tpc`, a file per kind; the entry point is cli.py."""
