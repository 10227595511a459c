"""Everything that touches pydicom. It is imported in function bodies: that costs 0.2 to 0.5 s.

Here is only what tells a DICOM file: the modules are imported once there is one to read.
"""

_PREFIX = slice(128, 132)


def is_dicom(data: bytes) -> bool:
    """Whether the bytes begin as a DICOM file does: PS3.10 section 7.1, or without its preamble.

    Without one, the first element has to be of group 0002 or 0008 and its length plausible: old
    archives store bare data sets.
    """
    if data[_PREFIX] == b"DICM":
        return True
    head = data[:8]
    if len(head) < 8 or head[0] not in (2, 8) or head[1] or head[3] or head[2] > 0x18:
        return False
    if head[4:6] in (b"UL", b"OB", b"CS", b"UI", b"DA", b"TM", b"SH", b"LO"):
        return True
    length = int.from_bytes(head[4:8], "little")
    return 0 < length <= 64 and length % 2 == 0
