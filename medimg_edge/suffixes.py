"""How the names of image files end."""

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".dcm", ".dicom"})
"""In lower case. What a file is, its bytes say; in a folder it is found by these."""
