"""Every error that a user can meet, as one tree.

    MedimgEdgeError
    ├── InputError                  one input cannot be read as a whole image   (record: "error")
    │   ├── InputMissing            input-missing
    │   ├── NoImages                input-no-images
    │   ├── InputEmpty              input-empty
    │   ├── NotAnImage              input-not-an-image
    │   ├── Truncated               input-truncated
    │   ├── TooLarge                input-too-large
    │   ├── Unsupported             input-unsupported
    │   ├── DicomInvalid            dicom-invalid
    │   ├── DicomNoPixels           dicom-no-pixels
    │   ├── DicomTransferSyntax     dicom-transfer-syntax
    │   ├── BurnedIn                dicom-burned-in
    │   └── DicomUnreferable        dicom-unreferable
    ├── Rejected                    readable, but not for this model         (record: "rejected")
    │   ├── TooSmall                too-small
    │   ├── Blank                   blank
    │   ├── LowContrast             low-contrast
    │   ├── Cropped                 cropped
    │   ├── Inverted                inverted
    │   ├── NotLikeTraining         not-like-training
    │   ├── UnitUnknown             unit-unknown
    │   ├── WrongModality           wrong-modality
    │   ├── WrongBodyPart           wrong-body-part
    │   ├── WrongView               wrong-view
    │   └── OwnResult               own-result
    ├── ModelError                  the network gave no usable answer            (record: "error")
    │   ├── ModelLoad               model-load
    │   ├── ModelRefused            model-refused
    │   ├── ModelOutput             model-output
    │   ├── ModelDeadline           model-deadline
    │   └── NotFinite               model-not-finite
    ├── BundleError                 a bundle that must not answer
    │   ├── BundleMissing           bundle-missing
    │   ├── ManifestInvalid         bundle-manifest
    │   ├── SchemaUnknown           bundle-schema
    │   ├── RevisionUnknown         bundle-revision
    │   ├── FilesDiffer             bundle-files
    │   ├── ArtifactUnknown         bundle-artifact
    │   ├── GoldenMismatch          bundle-golden
    │   ├── ProfileInvalid          bundle-profile
    │   ├── SignatureMissing        signature-missing
    │   ├── SignatureInvalid        signature-invalid
    │   ├── SignerUnknown           signer-unknown
    │   ├── SignerRevoked           signer-revoked
    │   ├── ArchiveInvalid          bundle-archive
    │   ├── VersionTooLow           bundle-version
    │   ├── StoreDamaged            bundle-store
    │   └── ReferenceMissing        bundle-reference
    ├── DataError                   a data set that cannot be trained on
    │   ├── DataMissing             data-missing
    │   ├── DataInvalid             data-invalid
    │   ├── TooFewImages            data-too-few
    │   ├── PositiveUnknown         data-positive
    │   └── DownloadFailed          data-download
    ├── KeyInvalid                  key
    ├── RiskUnknown                 risk
    ├── MachineFault                machine                                  (record: "error")
    ├── NodeError                   node
    ├── LedgerError                 a kiosk's record that cannot be relied on
    │   ├── LedgerMissing           ledger-missing
    │   ├── LedgerDamaged           ledger-damaged
    │   └── LedgerUnknown           ledger-unknown
    ├── ServiceError                a request that the kiosk's service does not answer
    │   ├── ServiceRefused          service
    │   ├── NotFound                not-found
    │   ├── MethodNotAllowed        method-not-allowed
    │   ├── RequestInvalid          request-invalid
    │   ├── MediaTypeUnknown        media-type
    │   ├── BodyTooLarge            body-too-large
    │   ├── ReceiveDeadline         receive-deadline
    │   ├── HostUnknown             host-unknown
    │   ├── OriginForeign           origin-foreign
    │   ├── TokenMissing            token
    │   ├── KeyReused               key-reused
    │   ├── KeyInUse                key-in-use
    │   ├── PictureGone             picture-gone
    │   ├── NotReady                not-ready
    │   ├── Busy                    busy
    │   ├── DiskLow                 disk-low
    │   └── AnswerStopped           answer-stopped                           (record: "error")
    ├── RecipeError                 recipe
    ├── RunError                    run
    ├── ModelUnsupported            model-unsupported
    ├── ConversionError             export-conversion
    ├── GateError                   export-gate
    ├── WriteError                  write
    ├── ExtraMissing                extra-missing
    └── Unexpected                  unexpected

A message says what was found, what is accepted, and what to do next. Codes are stable: scripts,
records and the HTTP API carry them.
"""


class MedimgEdgeError(Exception):
    """The root. ``code`` is stable and machine readable; ``str(error)`` is for a person."""

    code = "error"

    @property
    def message(self) -> str:
        """What was found, what is accepted, what to do."""
        return str(self)


class InputError(MedimgEdgeError):
    """One input cannot be read as a whole image; the other inputs of a call are still answered."""

    code = "input"


class InputMissing(InputError):
    """There is no such file, or it may not be read."""

    code = "input-missing"


class NoImages(InputError):
    """A folder in which no image was found."""

    code = "input-no-images"


class InputEmpty(InputError):
    """A file of zero bytes."""

    code = "input-empty"


class NotAnImage(InputError):
    """Bytes that are not PNG, JPEG, TIFF or DICOM, whatever the name says."""

    code = "input-not-an-image"


class Truncated(InputError):
    """Part of the image is missing or damaged."""

    code = "input-truncated"


class TooLarge(InputError):
    """The header declares more pixels than would be decoded safely."""

    code = "input-too-large"


class Unsupported(InputError):
    """A whole image of a kind that is not read (CMYK, floating point TIFF, several frames)."""

    code = "input-unsupported"


class DicomInvalid(InputError):
    """A DICOM file whose header contradicts itself or its pixels."""

    code = "dicom-invalid"


class DicomNoPixels(InputError):
    """A DICOM object without pixel data, such as a report."""

    code = "dicom-no-pixels"


class DicomTransferSyntax(InputError):
    """DICOM pixels in a compression that is not read."""

    code = "dicom-transfer-syntax"


class BurnedIn(InputError):
    """A DICOM image whose pixels may show whose it is; only deidentifying asks."""

    code = "dicom-burned-in"


class DicomUnreferable(InputError):
    """A DICOM image that does not say which it is, so that no result can refer to it."""

    code = "dicom-unreferable"


class Rejected(MedimgEdgeError):
    """The image can be read, but this model should not answer it.

    measured: what its record keeps of its looks, a ``record.Measured``, where they were measured.
    """

    code = "rejected"
    measured: object = None


class TooSmall(Rejected):
    """Fewer pixels than could show anything."""

    code = "too-small"


class Blank(Rejected):
    """Every pixel has the same value."""

    code = "blank"


class LowContrast(Rejected):
    """The image shows far fewer grey levels than those that the model was trained on."""

    code = "low-contrast"


class Cropped(Rejected):
    """The image shows a strip, or a small part within a flat border."""

    code = "cropped"


class Inverted(Rejected):
    """Black and white are exchanged."""

    code = "inverted"


class NotLikeTraining(Rejected):
    """The network sees something else than in the images that it was trained on."""

    code = "not-like-training"


class UnitUnknown(Rejected):
    """Pixels without a unit, for a model whose windows are in one."""

    code = "unit-unknown"


class WrongModality(Rejected):
    """A DICOM image of another modality than the model's."""

    code = "wrong-modality"


class WrongBodyPart(Rejected):
    """A DICOM image of another region of the body than the model's."""

    code = "wrong-body-part"


class WrongView(Rejected):
    """A DICOM image taken from another side than the model's."""

    code = "wrong-view"


class OwnResult(Rejected):
    """A picture that medimg-edge made of an answer; answering it would never end."""

    code = "own-result"


class ModelError(MedimgEdgeError):
    """The network did not give a usable answer."""

    code = "model"


class ModelLoad(ModelError):
    """The runtime does not load the artifact."""

    code = "model-load"


class ModelRefused(ModelError):
    """The model file holds what a bundle's must not: loops, own operators, weights elsewhere."""

    code = "model-refused"


class ModelOutput(ModelError):
    """The outputs do not fit what the manifest says."""

    code = "model-output"


class ModelDeadline(ModelError):
    """The network took longer than an answer may."""

    code = "model-deadline"


class NotFinite(ModelError):
    """The network returned NaN or an infinity."""

    code = "model-not-finite"


class BundleError(MedimgEdgeError):
    """A bundle that must not answer."""

    code = "bundle"


class BundleMissing(BundleError):
    """There is no bundle at that path."""

    code = "bundle-missing"


class ManifestInvalid(BundleError):
    """The manifest is not JSON, has two equal keys, or does not fit the schema."""

    code = "bundle-manifest"


class SchemaUnknown(BundleError):
    """The manifest is of a schema version that this release does not know."""

    code = "bundle-schema"


class RevisionUnknown(BundleError):
    """The bundle wants a preprocessing revision that this release does not know."""

    code = "bundle-revision"


class FilesDiffer(BundleError):
    """A file is changed, missing, added, a link, or outside of the bundle."""

    code = "bundle-files"


class ArtifactUnknown(BundleError):
    """The bundle has no such artifact, or this machine cannot run it."""

    code = "bundle-artifact"


class GoldenMismatch(BundleError):
    """The golden set does not give the same answer here."""

    code = "bundle-golden"


class ProfileInvalid(BundleError):
    """A site profile that cannot be read, or was made for another bundle."""

    code = "bundle-profile"


class SignatureMissing(BundleError):
    """Nobody has signed the bundle."""

    code = "signature-missing"


class SignatureInvalid(BundleError):
    """A signature that is not of this bundle, or no signature."""

    code = "signature-invalid"


class SignerUnknown(BundleError):
    """The bundle is signed by none of the keys that are trusted here."""

    code = "signer-unknown"


class SignerRevoked(BundleError):
    """The bundle is signed by a key that was withdrawn."""

    code = "signer-revoked"


class ArchiveInvalid(BundleError):
    """A .zip that is not one bundle and nothing else."""

    code = "bundle-archive"


class VersionTooLow(BundleError):
    """The bundle is older than what was installed here before, or its version has no order."""

    code = "bundle-version"


class StoreDamaged(BundleError):
    """What was installed cannot be used, or there is nothing to go back to."""

    code = "bundle-store"


class ReferenceMissing(BundleError):
    """The bundle does not hold what is needed: an older release exported it, or without."""

    code = "bundle-reference"


class DataError(MedimgEdgeError):
    """A data set that cannot be trained on or evaluated."""

    code = "data"


class DataMissing(DataError):
    """There is no data set at that path."""

    code = "data-missing"


class DataInvalid(DataError):
    """The data set contradicts itself, such as a CSV row whose file is missing."""

    code = "data-invalid"


class TooFewImages(DataError):
    """One class only, or too few images of one to split."""

    code = "data-too-few"


class PositiveUnknown(DataError):
    """Nothing says which of two labels is the positive one."""

    code = "data-positive"


class DownloadFailed(DataError):
    """A publisher's file could not be fetched or is not what was published."""

    code = "data-download"


class KeyInvalid(MedimgEdgeError):
    """A key, or a folder of keys, that cannot be used."""

    code = "key"


class RiskUnknown(MedimgEdgeError):
    """A risk that the bundle cannot keep, or under a site profile."""

    code = "risk"


class MachineFault(MedimgEdgeError):
    """The machine could not do it now; the image is not at fault, and may be tried again."""

    code = "machine"


class NodeError(MedimgEdgeError):
    """A DICOM node that cannot listen or send as it was told to."""

    code = "node"


class LedgerError(MedimgEdgeError):
    """A kiosk's record that cannot be relied on."""

    code = "ledger"


class LedgerMissing(LedgerError):
    """There is no record where it was looked for, or nothing was written to it yet."""

    code = "ledger-missing"


class LedgerDamaged(LedgerError):
    """An entry was changed, removed or added outside of medimg-edge, or the file is damaged."""

    code = "ledger-damaged"


class LedgerUnknown(LedgerError):
    """The record is of a schema version that this release does not know."""

    code = "ledger-unknown"


class ServiceError(MedimgEdgeError):
    """A request that the kiosk's service does not answer."""

    code = "service-error"


class ServiceRefused(ServiceError):
    """A service that cannot start, or must not start as it was told to."""

    code = "service"


class NotFound(ServiceError):
    """There is nothing at that path."""

    code = "not-found"


class MethodNotAllowed(ServiceError):
    """The path does not take that method."""

    code = "method-not-allowed"


class RequestInvalid(ServiceError):
    """A parameter, header or body that is not as the interface says."""

    code = "request-invalid"


class MediaTypeUnknown(ServiceError):
    """A Content-Type that is not taken."""

    code = "media-type"


class BodyTooLarge(ServiceError):
    """More bytes than are taken."""

    code = "body-too-large"


class ReceiveDeadline(ServiceError):
    """The body did not arrive in time."""

    code = "receive-deadline"


class HostUnknown(ServiceError):
    """A request to a name that is not this service's, such as by DNS rebinding."""

    code = "host-unknown"


class OriginForeign(ServiceError):
    """A request that another site's page makes."""

    code = "origin-foreign"


class TokenMissing(ServiceError):
    """No token, or a wrong one."""

    code = "token"


class KeyReused(ServiceError):
    """An Idempotency-Key that came with another image before."""

    code = "key-reused"


class KeyInUse(ServiceError):
    """An Idempotency-Key whose first request is still being answered."""

    code = "key-in-use"


class PictureGone(ServiceError):
    """The picture of an answer is not kept any more."""

    code = "picture-gone"


class NotReady(ServiceError):
    """The golden set has not passed since the start."""

    code = "not-ready"


class Busy(ServiceError):
    """As many images wait as may."""

    code = "busy"


class DiskLow(ServiceError):
    """Too little free disk to keep a new answer."""

    code = "disk-low"


class AnswerStopped(ServiceError):
    """An answer that took too long or too much memory."""

    code = "answer-stopped"


class RecipeError(MedimgEdgeError):
    """A recipe that is not TOML or does not fit its schema."""

    code = "recipe"


class RunError(MedimgEdgeError):
    """A run folder that cannot be used or must not be overwritten."""

    code = "run"


class ModelUnsupported(MedimgEdgeError):
    """A Keras model whose head is not understood."""

    code = "model-unsupported"


class ConversionError(MedimgEdgeError):
    """A converter failed, or wrote a file that is not the model."""

    code = "export-conversion"


class GateError(MedimgEdgeError):
    """An exported artifact answers differently than the trained model, beyond the limit."""

    code = "export-gate"


class WriteError(MedimgEdgeError):
    """A result could not be written; what was there before is unchanged."""

    code = "write"


class ExtraMissing(MedimgEdgeError):
    """A part that is not installed on this machine."""

    code = "extra-missing"


class Unexpected(MedimgEdgeError):
    """A fault of medimg-edge itself."""

    code = "unexpected"
