"""Who wrote a DICOM file or opened an association: PS3.10 section 7.1, PS3.7 annex D.3.3.2."""

from medimg_edge import __version__

MANUFACTURER = "medimg-edge"

CLASS_UID = "2.25.176618711998956086952096642816722991283"
"""Ours for ever; PS3.5 B.2 makes such UIDs of a random UUID."""

SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"

VERSION_NAME = f"MEDIMG_{__version__}"[:16]
