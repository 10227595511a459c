"""An answer in the words of an archive: a report (SR) and pictures (SC), in the image's own study.

    from medimg_edge.dicom.answer import results
    files = results.make(data, prediction, manifest, points, identifier="17", kinds={"sr", "sc"})

``results`` and its neighbours import pydicom, and ``report`` highdicom, where this does not.
"""

KINDS = ("sr", "sc")
"""What can be made: a structured report, and a secondary capture of each heatmap."""
