"""Plots of arrays and tables on matplotlib Axes."""

from m1pipe.plots import comparison as breakdown  # its former name

__all__ = ["breakdown"]
