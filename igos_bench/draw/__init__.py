"""Figures for a paper, a module a kind: from a table to a matplotlib figure. They read and write no files."""
