"""Everything that touches pydicom. It is imported in function bodies: that costs 0.2 to 0.5 s."""

from medimg_edge.dicom.read import DicomFile, is_dicom, read_dicom

__all__ = ["DicomFile", "is_dicom", "read_dicom"]
