"""``python -m medimg_edge.cli``."""

from medimg_edge.cli import process

process()
