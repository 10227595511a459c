"""Attributes that an image, its geometry, its acquisition or a training needs.

Those of the image modules of PS3.3 without what tells of people, orders, procedures, devices one by
one, comments, signatures and encryption. ``deidentify.py`` removes all that is not here, and what
table E.1-1 of PS3.15 removes, in every item of every sequence.
"""

from __future__ import annotations

from pydicom.datadict import dictionary_is_retired, dictionary_VR, tag_for_keyword
from pydicom.tag import BaseTag

_NUMBERS = frozenset({"AT", "DS", "FD", "FL", "IS", "OV", "SL", "SS", "SV", "UL", "US", "UV"})

_NUMBER_GROUPS = frozenset({0x0018, 0x0020, 0x0022, 0x0028, 0x0054, 0x7FE0})
"""Acquisition, place, eye, pixels, nuclear medicine; and where encapsulated frames lie."""


def is_needed(tag: BaseTag, vr: str) -> bool:
    """Of an attribute of the Standard that is no UID, and not told as something else than it is."""
    told, known = set(vr.split(" or ")), set(dictionary_VR(tag).split(" or "))
    a_number = told <= _NUMBERS
    if not told & known and not (a_number and known & _NUMBERS):
        return False
    if tag in _NEEDED:
        return True
    return a_number and tag.group in _NUMBER_GROUPS and not dictionary_is_retired(tag)


_WORDS = """
    SpecificCharacterSet ImageType SyntheticData Modality ConversionType PresentationIntentType
    MappingResource ContextGroupExtensionFlag ContextIdentifier FrameType PixelPresentation
    VolumetricProperties VolumeBasedCalculationTechnique ComplexImageComponent
    AcquisitionContrast SkipFrameRangeFlag LightSourcePolarization ContactMethod ImmersionMedia
    BodyPartExamined ScanningSequence SequenceVariant ScanOptions MRAcquisitionType AngioFlag
    AcquisitionTerminationCondition AcquisitionStartCondition ContrastBolusIngredient
    SynchronizationTrigger BeatRejectionFlag TableMotion TableType RotationDirection
    FieldOfViewShape RadiationSetting RectificationType RadiationMode Grid CollimatorType
    AnodeTargetMaterial WholeBodyTechnique InPlanePhaseEncodingDirection VariableFlipAngleFlag
    CassetteOrientation CassetteSize TomoType TomoClass PositionerMotion PositionerType
    ShutterShape CollimatorShape AcquisitionTimeSynchronized DigitizingDeviceTransportDirection
    IVUSAcquisition PatientPosition ViewPosition TransducerType DetectorConditionsNominalFlag
    DetectorType DetectorConfiguration DetectorActiveShape FieldOfViewHorizontalFlip
    FilterMaterial ExposureControlMode ExposureStatus ContentQualification EchoPulseSequence
    InversionRecovery FlowCompensation MultipleSpinEcho MultiPlanarExcitation PhaseContrast
    TimeOfFlightContrast Spoiling SteadyStatePulseSequence EchoPlanarPulseSequence
    MagnetizationTransfer T2Preparation BloodSignalNulling SaturationRecovery
    SpectrallySelectedSuppression SpectrallySelectedExcitation SpatialPresaturation Tagging
    OversamplingPhase GeometryOfKSpaceTraversal SegmentedKSpaceTraversal
    RectilinearPhaseEncodeReordering PartialFourierDirection CardiacSynchronizationTechnique
    ReceiveCoilType QuadratureReceiveCoil MultiCoilElementUsed TransmitCoilType KSpaceFiltering
    DiffusionDirectionality ParallelAcquisition ParallelAcquisitionTechnique PartialFourier
    CardiacSignalSource CoverageOfKSpace ResonantNucleus DiffusionAnisotropyType
    CardiacBeatRejectionTechnique RespiratoryMotionCompensationTechnique RespiratorySignalSource
    BulkMotionCompensationTechnique BulkMotionSignalSource OperatingModeType OperatingMode
    SpecificAbsorptionRateDefinition GradientOutputType FlowCompensationDirection
    RespiratoryCyclePosition CardiacCyclePosition ArterialSpinLabelingContrast ASLContext
    ASLCrusherFlag ASLBolusCutoffFlag AcquisitionType ReconstructionAlgorithm
    ConvolutionKernelGroup ExposureModulationType ConstantVolumeFlag FluoroscopyFlag
    ContrastBolusAgentAdministered ContrastBolusAgentDetected ContrastBolusAgentPhase
    MultienergyCTAcquisition MultienergySourceTechnique MultienergyDetectorType
    DecompositionMethod PlanesInAcquisition XRayReceptorType ContrastBolusIngredientOpaque
    IntensifierActiveShape ExposureControlSensingRegionShape PlaneIdentification
    CArmPositionerTabletopRelationship AlgorithmType PositionerPrimaryAngleDirection
    FunctionalSettlingPhaseFramesPresent SettlingPhaseFrame DetectorGeometry
    AttenuationCorrectionSource TimeOfFlightInformationUsed ReconstructionType DecayCorrected
    AttenuationCorrected ScatterCorrected DeadTimeCorrected GantryMotionCorrected
    PatientMotionCorrected CountLossNormalizationCorrected RandomsCorrected
    NonUniformRadialSamplingCorrected SensitivityCalibrated DetectorNormalizationCorrection
    IterativeReconstructionMethod AttenuationCorrectionTemporalRelationship PatientOrientation
    Laterality ImageLaterality FrameLaterality StartingRespiratoryPhase EndingRespiratoryPhase
    RespiratoryTriggerType DimensionOrganizationType PatientEyeMovementCommanded PupilDilated
    StereoPairsPresent PhotometricInterpretation CorrectedImage QualityControlImage
    BurnedInAnnotation RecognizableVisualFeatures PixelSpacingCalibrationType
    PixelIntensityRelationship VOILUTFunction RecommendedViewingMode BreastImplantPresent
    PartialView SpatialLocationsPreserved ColorSpace LossyImageCompression
    LossyImageCompressionMethod FrameOfInterestType MaskOperation GeometricalProperties
    ImageProcessingApplied MaskSelectionMode LUTFunction EquipmentCoordinateSystemIdentification
    OrganExposed EntranceDoseDerivation CalibrationImage TypeOfDetectorMotion
    SliceProgressionDirection ScanProgressionDirection SeriesType Units CountsSource
    ReprojectionMethod SUVType RandomsCorrectionMethod DecayCorrection SecondaryCountsType
    PresentationLUTShape ScanArcType DetectorPositioningType
"""
"""Code strings: each is one of the few words that the Standard defines for it."""

_LABELS = """
    Manufacturer ManufacturerModelName SoftwareVersions
    SecondaryCaptureDeviceManufacturer SecondaryCaptureDeviceManufacturerModelName
    SecondaryCaptureDeviceSoftwareVersions DetectorManufacturerName DetectorManufacturerModelName
    CodeValue CodingSchemeDesignator CodingSchemeVersion CodeMeaning
    RescaleType ModalityLUTType StackID
    ConvolutionKernel ImageFilter FilterType TypeOfFilters PlateType PhosphorType CollimatorGridName
    AcquisitionDeviceProcessingCode ImagedNucleus SequenceName PulseSequenceName ReceiveCoilName
    ReceiveCoilManufacturerName TransmitCoilName TransmitCoilManufacturerName
    MultiCoilConfiguration MultiCoilElementName TransducerData ProcessingFunction
    ReconstructionMethod AttenuationCorrectionMethod ScatterCorrectionMethod
"""
"""Short texts that makers write, not people: apparatus, filters, kernels, codes."""

_ARRAYS = """
    PixelData LUTData
    RedPaletteColorLookupTableData GreenPaletteColorLookupTableData
    BluePaletteColorLookupTableData SegmentedRedPaletteColorLookupTableData
    SegmentedGreenPaletteColorLookupTableData SegmentedBluePaletteColorLookupTableData
"""

_COUNTS = """
    NumberOfStages NumberOfViewsInStage StageNumber ViewNumber NumberOfEventTimers
    EventElapsedTimes StartTrim StopTrim RecommendedDisplayFrameRate
    RecommendedDisplayFrameRateInFloat ReferencedFrameNumber ReferencedSegmentNumber
    EntranceDose EntranceDoseInmGy ExposedArea DistanceSourceToEntrance XRayOutput HalfValueLayer
    OrganDose HistogramNumberOfBins HistogramFirstBinValue HistogramLastBinValue HistogramBinWidth
    HistogramData ContrastBolusIngredientPercentByVolume
    TableTopVerticalPosition TableTopLongitudinalPosition TableTopLateralPosition
"""
"""Numbers outside of the groups above."""

_SEQUENCES = """
    ReferencedSeriesSequence ReferencedImageSequence ReferencedInstanceSequence
    ReferencedSOPSequence StudiesContainingOtherReferencedInstancesSequence
    RelatedSeriesSequence SourceImageSequence AnatomicRegionSequence
    AnatomicRegionModifierSequence PrimaryAnatomicStructureSequence
    PrimaryAnatomicStructureModifierSequence ReferencedImageEvidenceSequence
    ReferencedRawDataSequence DerivationImageSequence SourceImageEvidenceSequence
    DerivationCodeSequence ReferencedOtherPlaneSequence FrameDisplaySequence
    ContrastBolusAgentSequence ContrastBolusAdministrationRouteSequence
    WaterEquivalentDiameterCalculationMethodCodeSequence BiopsyTargetSequence
    ProjectionEponymousNameCodeSequence SequenceOfUltrasoundRegions MRImagingModifierSequence
    MRReceiveCoilSequence MultiCoilDefinitionSequence MRTransmitCoilSequence
    DiffusionGradientDirectionSequence MetaboliteMapCodeSequence ChemicalShiftSequence
    VelocityEncodingAcquisitionSequence MRSpatialSaturationSequence
    MRTimingAndRelatedParametersSequence MREchoSequence MRModifierSequence MRDiffusionSequence
    CardiacSynchronizationSequence MRAveragesSequence MRFOVGeometrySequence
    MRMetaboliteMapSequence OperatingModeSequence MRVelocityEncodingSequence
    MRImageFrameTypeSequence SpecificAbsorptionRateSequence MRArterialSpinLabelingSequence
    ASLBolusCutoffTimingSequence ASLSlabSequence CTAcquisitionTypeSequence
    CTAcquisitionDetailsSequence CTTableDynamicsSequence CTGeometrySequence
    CTReconstructionSequence CTExposureSequence CTXRayDetailsSequence CTPositionSequence
    CTImageFrameTypeSequence ContrastBolusIngredientCodeSequence
    ContrastAdministrationProfileSequence ContrastBolusUsageSequence CTDIPhantomTypeCodeSequence
    CTAdditionalXRaySourceSequence MultienergyCTAcquisitionSequence
    MultienergyCTProcessingSequence MultienergyCTCharacteristicsSequence
    MultienergyCTXRaySourceSequence MultienergyCTXRayDetectorSequence MultienergyCTPathSequence
    MaterialCodeSequence DecompositionMaterialSequence MaterialAttenuationSequence
    ProjectionPixelCalibrationSequence PositionerPositionSequence TablePositionSequence
    CollimatorShapeSequence XAXRFFrameCharacteristicsSequence FrameAcquisitionSequence
    FieldOfViewSequence ExposureControlSensingRegionsSequence FrameDetectorParametersSequence
    ObjectThicknessSequence IsocenterReferenceSystemSequence FrameDisplayShutterSequence
    XRayGeometrySequence IrradiationEventIdentificationSequence XRay3DFrameTypeSequence
    ContributingSourcesSequence XRay3DAcquisitionSequence XRay3DReconstructionSequence
    PerProjectionAcquisitionSequence DetectorPositionSequence XRayAcquisitionDoseSequence
    XRayGridSequence XRayFilterSequence DiffusionBMatrixSequence FunctionalMRSequence
    PETFrameAcquisitionSequence PETDetectorMotionDetailsSequence PETTableDynamicsSequence
    PETPositionSequence PETFrameCorrectionFactorsSequence RadiopharmaceuticalUsageSequence
    PETReconstructionSequence PETFrameTypeSequence FrameAnatomySequence FrameContentSequence
    PlanePositionSequence PlaneOrientationSequence UnassignedSharedConvertedAttributesSequence
    UnassignedPerFrameConvertedAttributesSequence ConversionSourceAttributesSequence
    DimensionOrganizationSequence DimensionIndexSequence RespiratorySynchronizationSequence
    TemporalPositionSequence PatientOrientationInFrameSequence
    ContributingSOPInstancesReferenceSequence PatientEyeMovementCommandCodeSequence
    AcquisitionDeviceTypeCodeSequence IlluminationTypeCodeSequence
    LightPathFilterTypeStackCodeSequence ImagePathFilterTypeStackCodeSequence LensesCodeSequence
    RefractiveStateSequence MydriaticAgentCodeSequence RelativeImagePositionCodeSequence
    MydriaticAgentConcentrationUnitsSequence MydriaticAgentSequence PartialViewCodeSequence
    ModalityLUTSequence VOILUTSequence MaskSubtractionSequence PixelMeasuresSequence
    FrameVOILUTSequence PixelValueTransformationSequence FramePixelShiftSequence
    PixelIntensityRelationshipLUTSequence FramePixelDataPropertiesSequence
    PurposeOfReferenceCodeSequence SourceInstanceSequence EnergyWindowInformationSequence
    EnergyWindowRangeSequence RadiopharmaceuticalInformationSequence DetectorInformationSequence
    PhaseInformationSequence RotationInformationSequence GatedInformationSequence
    TimeSlotInformationSequence ViewCodeSequence ViewModifierCodeSequence
    RadionuclideCodeSequence AdministrationRouteCodeSequence RadiopharmaceuticalCodeSequence
    CalibrationDataSequence PatientOrientationCodeSequence
    PatientOrientationModifierCodeSequence PatientGantryRelationshipCodeSequence
    HistogramSequence ImagingSourcePositionSequence ImageReceptorPositionSequence
    ScanStartPositionSequence ScanStopPositionSequence PatientToEquipmentRelationshipSequence
    PatientEquipmentRelationshipCodeSequence SharedFunctionalGroupsSequence
    PerFrameFunctionalGroupsSequence
"""
"""Their items are cleaned as the data set is."""

_NEEDED = frozenset(
    tag_for_keyword(keyword)
    for keywords in (_WORDS, _LABELS, _ARRAYS, _COUNTS, _SEQUENCES)
    for keyword in keywords.split()
)
