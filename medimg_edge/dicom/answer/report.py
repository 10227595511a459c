"""The structured report of an image's answers: PS3.3 A.35.3 (Comprehensive SR), PS3.16 TID 1500.

Comprehensive SR and not Enhanced or 3D: the one of the three that archives have known longest.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence

from highdicom.sr import (
    AlgorithmIdentification,
    CodedConcept,
    DeviceObserverIdentifyingAttributes,
    Measurement,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    ObservationContext,
    ObserverContext,
    QualitativeEvaluation,
    SourceImageForMeasurementGroup,
    TextContentItem,
    TrackingIdentifier,
)
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import ComprehensiveSRStorage

from medimg_edge.dicom.answer.instance import NOT_FOR_DIAGNOSIS, Provenance
from medimg_edge.dicom.implementation import MANUFACTURER
from medimg_edge.manifest import OperatingPoint
from medimg_edge.record import Finding

SCHEME = "99MEDIMGEDGE"
"""The coding scheme of what no standard one has: labels, and the three concepts below."""

PROBABILITY = CodedConcept("probability", SCHEME, "Probability")
THRESHOLD = CodedConcept("threshold", SCHEME, "Decision threshold")
DECISION = CodedConcept("decision", SCHEME, "Decision")
_DECISIONS = {
    "positive": codes.SCT.Positive,
    "negative": codes.SCT.Negative,
    "refer": CodedConcept("refer", SCHEME, "Refer to a reader"),
}
_SERIES_NUMBER = 9901


def report(
    origin: Provenance, answers: Sequence[Provenance], points: Mapping[str, OperatingPoint]
) -> Dataset:
    """One measurement group (TID 1501) for each finding of each answer, in their order.

    answers: ``origin`` itself, or the frames of its image, each with its own record.
    points: where each label's probability becomes a decision; none for multiclass, where the
        decision is a label.
    """
    dataset = origin.instance(
        ComprehensiveSRStorage, "sr", series="sr", number=origin.source.frame or 1
    )
    # SR Document Series, C.17.1
    dataset.Modality = "SR"
    dataset.SeriesNumber = _SERIES_NUMBER
    dataset.ReferencedPerformedProcedureStepSequence = []
    # SR Document General, C.17.2: all that the model says, by nobody confirmed
    dataset.CompletionFlag = "COMPLETE"
    dataset.PreliminaryFlag = "PRELIMINARY"
    dataset.VerificationFlag = "UNVERIFIED"
    dataset.PerformedProcedureCodeSequence = []
    dataset.CurrentRequestedProcedureEvidenceSequence = [_evidence(origin)]
    dataset.CodingSchemeIdentificationSequence = [_scheme()]
    dataset.update(_content(origin, answers, points))
    return dataset


def _content(
    origin: Provenance, answers: Sequence[Provenance], points: Mapping[str, OperatingPoint]
) -> Dataset:
    """The root of the tree. TID 1500."""
    tree = MeasurementReport(
        observation_context=ObservationContext(observer_device_context=_device(origin)),
        procedure_reported=codes.SCT.ImagingProcedure,
        imaging_measurements=[
            _group(each, finding, points.get(finding.label))
            for each in answers
            for finding in each.record.findings
        ],
    )
    root = tree[0]
    root.ContentSequence.append(TextContentItem(codes.DCM.Comment, _comment(origin), "CONTAINS"))
    return root


def _comment(origin: Provenance) -> str:
    return origin.source.words(
        f"{NOT_FOR_DIAGNOSIS}. Computed by a model, not verified. "
        f"Intended use: {origin.intended_use}"
    )


def _device(origin: Provenance) -> ObserverContext:
    """TID 1004: the model as an observer; its UID is of the bundle, artifact and site profile."""
    model = origin.record.model
    return ObserverContext(
        codes.DCM.Device,
        DeviceObserverIdentifyingAttributes(
            uid=origin.model_uid,
            name=model.name,
            manufacturer_name=MANUFACTURER,
            model_name=model.name,
            serial_number=model.hash,
        ),
    )


def _group(
    origin: Provenance, finding: Finding, point: OperatingPoint | None
) -> MeasurementsAndQualitativeEvaluations:
    """TID 1501: one label, its probability, and what is decided of it."""
    source = origin.source
    measurements = [Measurement(PROBABILITY, finding.probability, codes.UCUM.NoUnits)]
    if point is not None:
        measurements.append(Measurement(THRESHOLD, point.threshold, codes.UCUM.NoUnits))
    label = source.words(finding.label)
    return MeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(origin.uid(f"finding {finding.label}"), label),
        finding_type=_coded(origin, finding.label),
        algorithm_id=_algorithm(origin, point),
        measurements=measurements,
        qualitative_evaluations=[
            QualitativeEvaluation(
                DECISION, _DECISIONS.get(finding.decision) or _coded(origin, finding.decision)
            )
        ],
        source_images=[
            SourceImageForMeasurementGroup(
                source.sop_class,
                source.sop_instance,
                None if source.frame is None else [source.frame],
            )
        ],
    )


def _algorithm(origin: Provenance, point: OperatingPoint | None) -> AlgorithmIdentification:
    """TID 4019: what someone needs to ask the same model again."""
    record = origin.record
    parameters = [
        f"bundle SHA-256: {record.model.hash}",
        f"artifact: {record.artifact}",
        f"runtime: {record.runtime}",
    ]
    if record.profile is not None:
        parameters.append(f"site profile SHA-256: {record.profile}")
    if point is not None:
        parameters.append(_operating_point(point))
    words = origin.source.words
    return AlgorithmIdentification(
        name=words(record.model.name),
        version=words(record.model.version),
        manufacturer=MANUFACTURER,
        parameters=[words(each) for each in parameters],
    )


def _operating_point(point: OperatingPoint) -> str:
    said = [f"positive from {point.threshold:.6g} on (rule: {point.rule})"]
    if point.refer is not None:
        said.append("refer from {:.6g} to {:.6g}".format(*point.refer))
    if point.sensitivity is not None and point.specificity is not None:
        said.append(
            f"on validation sensitivity {point.sensitivity:.3f}, "
            f"specificity {point.specificity:.3f}"
        )
    return f"operating point: {'; '.join(said)}"


def _coded(origin: Provenance, label: str) -> CodedConcept:
    """A label in our scheme: by itself where a Code Value (SH) holds it, else by its digest."""
    if re.fullmatch(r"[A-Za-z0-9._-]{1,16}", label):
        value = label
    else:
        value = hashlib.sha256(label.encode()).hexdigest()[:16]
    return CodedConcept(value, SCHEME, origin.source.line(label) or value)


def _scheme() -> Dataset:
    """Coding Scheme Identification, C.12.1.1.1."""
    item = Dataset()
    item.CodingSchemeDesignator = SCHEME
    item.CodingSchemeName = "Labels and concepts of medimg-edge bundles"
    item.CodingSchemeResponsibleOrganization = MANUFACTURER
    return item


def _evidence(origin: Provenance) -> Dataset:
    """The image by its place in the archive: Hierarchical SOP Instance Reference, C.17.2.1."""
    instance = Dataset()
    instance.ReferencedSOPClassUID = origin.source.sop_class
    instance.ReferencedSOPInstanceUID = origin.source.sop_instance
    series = Dataset()
    series.SeriesInstanceUID = origin.source.series
    series.ReferencedSOPSequence = [instance]
    study = Dataset()
    study.StudyInstanceUID = origin.source.study
    study.ReferencedSeriesSequence = [series]
    return study
