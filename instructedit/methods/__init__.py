"""Editing methods, one file each, behind one verb."""
