"""The bundles that the package brings, each in a folder of its name."""

from pathlib import Path

FOLDER = Path(__file__).parent
DEFAULT = "pneumonia-cxr"
"""What answers where no bundle is named."""
