"""One frame of an enhanced object as a data set of its own. PS3.3 C.7.6.16.

Enhanced objects keep what differs from frame to frame, or may differ, in functional groups: a
sequence for all frames, and one with an item for each. The frame's own group goes first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from medimg_edge.errors import DicomInvalid

if TYPE_CHECKING:
    from pydicom import Dataset

_MACROS = {
    "PixelMeasuresSequence": ("PixelSpacing",),  # C.7.6.16.2.1
    "PlanePositionSequence": ("ImagePositionPatient",),  # C.7.6.16.2.3
    "PlaneOrientationSequence": ("ImageOrientationPatient",),  # C.7.6.16.2.4
    "FrameAnatomySequence": ("AnatomicRegionSequence",),  # C.7.6.16.2.8
    "PixelValueTransformationSequence": ("RescaleIntercept", "RescaleSlope"),  # C.7.6.16.2.9
    "FrameVOILUTSequence": (  # C.7.6.16.2.10
        *("WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence"),
    ),
}


def of_frame(dataset: Dataset, number: int, frames: int) -> Dataset:
    """What describes frame ``number``, from 0, at the top level; any other object as it is.

    Pixels and groups are left out. Raises DicomInvalid where groups are missing.
    """
    shared, each = _items(dataset, "Shared"), _items(dataset, "PerFrame")
    if not shared and not each:
        return dataset
    if each and len(each) != frames:
        raise DicomInvalid(
            f"PerFrameFunctionalGroupsSequence (5200,9230) has {len(each)} items for {frames} "
            "frames: which rescale and window belong to a frame is not known."
        )
    groups = [*shared[:1], *each[number : number + 1]]
    from pydicom import Dataset

    tags = (tag for tag in dataset.keys() if tag.group < 0x5200)  # noqa: SIM118 - not elements
    flat = Dataset({tag: dataset.get_item(tag) for tag in tags})
    for group in groups:
        for macro, keywords in _MACROS.items():
            for item in group.get(macro, ())[:1]:
                flat.update({item[name].tag: item[name] for name in keywords if name in item})
    return flat


def _items(dataset: Dataset, which: str) -> list[Dataset]:
    return list(dataset.get(f"{which}FunctionalGroupsSequence") or ())
