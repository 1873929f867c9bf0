"""The command `report`: a page to look through the runs of a results folder, with its pictures in files beside it.

page.py         the page: its sections, made from the templates, and the numbers that its gallery reads
sections.py     what stands in the tables: areas, differences, times, failures, provenance
gallery.py      every image in every cell, and the files with their pictures
pictures.py     the file of an image: photograph, what it looks like deleted, and every cell's map and curves
templates/      HTML, style and scripts, which are put into the page as they stand
"""

from .page import write_report

__all__ = ["write_report"]
