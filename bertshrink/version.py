"""Which bertshrink this is, and where it is. Imports nothing: every room may ask."""

from pathlib import Path

__version__ = "0.1.0.dev0"

PACKAGE = Path(__file__).parent
"""The folder of the installed package."""
