"""Receiving: C-ECHO, and C-STORE of images, each handed on as one complete file. PS3.4 Annex B."""

from __future__ import annotations

import re
import threading
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import cast

from pydicom import uid
from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag
from pynetdicom import AE, evt
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dsutils import split_dataset

from medimg_edge.dicom.node import guard
from medimg_edge.dicom.node.settings import Settings
from medimg_edge.dicom.node.tls import server_context
from medimg_edge.errors import MedimgEdgeError, NodeError

SUCCESS = 0x0000
OUT_OF_RESOURCES = 0xA700
DOES_NOT_MATCH = 0xA900
CANNOT_UNDERSTAND = 0xC000
FAILED = 0x0110
"""Statuses of a C-STORE: PS3.4 table B.2-1, PS3.7 section C.5.7."""

SOP_CLASSES = (
    uid.ComputedRadiographyImageStorage,
    uid.DigitalXRayImageStorageForPresentation,
    uid.DigitalXRayImageStorageForProcessing,
    uid.DigitalMammographyXRayImageStorageForPresentation,
    uid.DigitalMammographyXRayImageStorageForProcessing,
    uid.DigitalIntraOralXRayImageStorageForPresentation,
    uid.DigitalIntraOralXRayImageStorageForProcessing,
    uid.BreastTomosynthesisImageStorage,
    uid.XRayAngiographicImageStorage,
    uid.EnhancedXAImageStorage,
    uid.XRayRadiofluoroscopicImageStorage,
    uid.EnhancedXRFImageStorage,
    uid.CTImageStorage,
    uid.EnhancedCTImageStorage,
    uid.LegacyConvertedEnhancedCTImageStorage,
    uid.MRImageStorage,
    uid.EnhancedMRImageStorage,
    uid.LegacyConvertedEnhancedMRImageStorage,
    uid.NuclearMedicineImageStorage,
    uid.PositronEmissionTomographyImageStorage,
    uid.UltrasoundImageStorage,
    uid.UltrasoundMultiFrameImageStorage,
    uid.SecondaryCaptureImageStorage,
    uid.MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    uid.MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    uid.MultiFrameTrueColorSecondaryCaptureImageStorage,
    uid.VLEndoscopicImageStorage,
    uid.VLPhotographicImageStorage,
    uid.DermoscopicPhotographyImageStorage,
    uid.OphthalmicPhotography8BitImageStorage,
    uid.OphthalmicPhotography16BitImageStorage,
)

TRANSFER_SYNTAXES = (
    uid.ExplicitVRLittleEndian,
    uid.ImplicitVRLittleEndian,
    uid.ExplicitVRBigEndian,
    uid.DeflatedExplicitVRLittleEndian,
    uid.RLELossless,
    uid.JPEGBaseline8Bit,
    uid.JPEGExtended12Bit,
    uid.JPEGLossless,
    uid.JPEGLosslessSV1,
    uid.JPEGLSLossless,
    uid.JPEGLSNearLossless,
    uid.JPEG2000Lossless,
    uid.JPEG2000,
    uid.HTJ2KLossless,
    uid.HTJ2KLosslessRPCL,
    uid.HTJ2K,
)

_VERIFICATION = "1.2.840.10008.1.1"
_SOP_CLASS_UID, _SOP_INSTANCE_UID = 0x00080016, 0x00080018
_HEAD_BYTES = 64 * 1024
"""Both UIDs are among the first elements of a data set."""

_UID = re.compile(r"(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))+", re.ASCII)
_PLAIN_TITLE = re.compile(r"[A-Za-z0-9_.-]{1,16}", re.ASCII)


@dataclass(frozen=True)
class Received:
    """One image: a complete file (PS3.10) that is the receiver's to move; else it is removed.

    The UIDs are valid (PS3.5 section 9.1) and those of the data set. ``calling`` is the peer's
    AE title.
    """

    path: Path
    sop_class: str
    sop_instance: str
    calling: str


class Listener:
    """A storage SCP in threads of its own.

    ``store`` is called for each image, from several threads at once, and returns the status that
    the peer is told (PS3.4 table B.2-1): 0x0000 only when the image is safe. What is being
    received is in ``folder``, under names of our own. ``log`` takes lines without patient data.
    """

    def __init__(
        self,
        settings: Settings,
        store: Callable[[Received], int],
        folder: Path,
        log: Callable[[str], None] | None = None,
    ) -> None:
        self._settings, self._store, self._folder = settings, store, folder
        self._log = log or (lambda line: None)
        self._server: guard.GuardedServer | None = None
        self._thread: threading.Thread | None = None

    @property
    def address(self) -> tuple[str, int]:
        """Host and port, once started."""
        if self._server is None:
            raise RuntimeError("the listener is not started")
        return self._server.server_address[:2]

    @property
    def is_alive(self) -> bool:
        """Whether it listens, and has not ended by itself."""
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        """Listen. Raises NodeError."""
        settings = self._settings
        guard.configure()
        context = server_context(settings.tls) if settings.tls else None
        entity = self._entity()
        try:
            self._server = guard.GuardedServer(
                entity,
                (settings.host, settings.port),
                settings.aet,
                entity.supported_contexts,
                context,
                [
                    (evt.EVT_C_ECHO, self._echoed),
                    (evt.EVT_C_STORE, self._received),
                    (evt.EVT_REJECTED, self._rejected),
                ],
                limits=settings.limits,
                folder=self._folder,
                log=self._log,
            )
        except OSError as error:
            raise NodeError(
                f"Cannot listen on {settings.host} port {settings.port} "
                f"({error.strerror or error}). Choose an address of this machine and a free port."
            ) from error
        self._thread = threading.Thread(target=self._server.serve_forever, name="listener")
        self._thread.start()

    def stop(self) -> None:
        """End what is open, and return when the last image has been stored or removed."""
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._thread.join()

    def _entity(self) -> AE:
        settings, limits = self._settings, self._settings.limits
        entity = AE(settings.aet)
        entity.require_called_aet = True
        entity.require_calling_aet = list(settings.allow)
        entity.maximum_pdu_size = limits.pdu_bytes
        entity.maximum_associations = 2 * limits.connections  # the guard counts them
        entity.acse_timeout = limits.association_seconds
        entity.network_timeout = limits.idle_seconds
        entity.add_supported_context(_VERIFICATION)
        for each in SOP_CLASSES:
            entity.add_supported_context(each, list(TRANSFER_SYNTAXES))
        return entity

    def _echoed(self, event: evt.Event) -> int:
        self._tell(event, "echo")
        return SUCCESS

    def _rejected(self, event: evt.Event) -> None:
        request = event.assoc.requestor.primitive
        reason = "its AE title is not on the list"
        if request is None or request.called_ae_title != self._settings.aet:
            reason = f"it does not call {self._settings.aet}"
        self._tell(event, f"refused: {reason}")

    def _received(self, event: evt.Event) -> int:
        incoming = guard.connection_of_this_thread().incoming.pop(event.dataset_path)
        try:
            incoming.close()
            status = self._answer(event, incoming)
        finally:
            incoming.discard()
        self._tell(event, f"store 0x{status:04X}")
        return status

    def _answer(self, event: evt.Event, incoming: guard.IncomingFile) -> int:
        """The status for an image that has arrived."""
        if incoming.error is not None:
            return OUT_OF_RESOURCES
        path, request = event.dataset_path, cast(C_STORE, event.request)
        uids = str(request.AffectedSOPClassUID), str(request.AffectedSOPInstanceUID)
        if not all(map(is_uid, uids)):
            return CANNOT_UNDERSTAND
        if uids[0] != event.context.abstract_syntax:
            return DOES_NOT_MATCH
        found = _uids_of_data_set(path, event.context.transfer_syntax)
        if found != uids:
            return DOES_NOT_MATCH if found else CANNOT_UNDERSTAND
        try:
            return self._store(Received(path, *uids, calling=event.assoc.requestor.ae_title))
        except MedimgEdgeError as error:
            self._log(f"store: {error.code}")
            return OUT_OF_RESOURCES
        except Exception as error:  # the peer is told, and the association goes on
            self._log(f"store: {type(error).__name__}")
            return FAILED

    def _tell(self, event: evt.Event, what: str) -> None:
        title = event.assoc.requestor.ae_title
        if title not in self._settings.allow and not _PLAIN_TITLE.fullmatch(title):
            title = "?"
        self._log(f"{event.assoc.requestor.address} {title}: {what}")


def is_uid(value: str) -> bool:
    """PS3.5 section 9.1: at most 64 characters; numbers without leading zeros, between dots."""
    return len(value) <= 64 and _UID.fullmatch(value) is not None


def _uids_of_data_set(path: Path, transfer_syntax: str) -> tuple[str, str] | None:
    """SOP Class and Instance UID as the data set says, from its first bytes; None: it does not."""
    syntax = uid.UID(transfer_syntax)
    _, offset = split_dataset(path)
    with path.open("rb") as file:
        file.seek(offset)
        head = file.read(_HEAD_BYTES)
    try:
        if syntax == uid.DeflatedExplicitVRLittleEndian:  # PS3.5 section A.5, and no more than this
            head = zlib.decompressobj(-zlib.MAX_WBITS).decompress(head, _HEAD_BYTES)
        elements = read_dataset(
            BytesIO(head), syntax.is_implicit_VR, syntax.is_little_endian, stop_when=_is_behind
        )
        values = [elements.get_item(tag).value for tag in (_SOP_CLASS_UID, _SOP_INSTANCE_UID)]
        sop_class_uid, sop_instance_uid = (value.decode("ascii").rstrip("\0") for value in values)
    except Exception:  # whatever a peer sends; pydicom has no error of its own for it
        return None
    return sop_class_uid, sop_instance_uid


def _is_behind(tag: BaseTag, vr: str | None, length: int) -> bool:
    return tag > _SOP_INSTANCE_UID
