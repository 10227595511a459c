"""Our errors as HTTP answers: one table of statuses, one form (RFC 9457, problem+json)."""

from __future__ import annotations

from http import HTTPStatus

import msgspec
from starlette.responses import Response

from medimg_edge import errors
from medimg_edge.errors import MedimgEdgeError

MEDIA_TYPE = "application/problem+json"

STATUS: dict[type[MedimgEdgeError], int] = {
    errors.InputMissing: 404,
    errors.InputEmpty: 422,
    errors.NotAnImage: 415,
    errors.Truncated: 422,
    errors.TooLarge: 422,
    errors.Unsupported: 422,
    errors.DicomInvalid: 422,
    errors.DicomNoPixels: 422,
    errors.DicomTransferSyntax: 422,
    errors.TooSmall: 422,
    errors.Blank: 422,
    errors.LowContrast: 422,
    errors.Cropped: 422,
    errors.Inverted: 422,
    errors.NotLikeTraining: 422,
    errors.UnitUnknown: 422,
    errors.WrongModality: 422,
    errors.WrongBodyPart: 422,
    errors.WrongView: 422,
    errors.OwnResult: 422,
    errors.AnswerStopped: 422,
    errors.NotFinite: 500,
    errors.MachineFault: 503,
    errors.ModelRefused: 503,
    errors.ModelDeadline: 503,
    errors.GoldenMismatch: 503,
    errors.SignatureMissing: 503,
    errors.SignatureInvalid: 503,
    errors.SignerUnknown: 503,
    errors.SignerRevoked: 503,
    errors.NotReady: 503,
    errors.Busy: 503,
    errors.DiskLow: 507,
    errors.WriteError: 507,
    errors.RequestInvalid: 422,
    errors.MediaTypeUnknown: 415,
    errors.BodyTooLarge: 413,
    errors.ReceiveDeadline: 408,
    errors.NotFound: 404,
    errors.MethodNotAllowed: 405,
    errors.PictureGone: 404,
    errors.KeyReused: 409,
    errors.KeyInUse: 409,
    errors.TokenMissing: 401,
    errors.OriginForeign: 403,
    errors.HostUnknown: 421,
}
"""Every error that a request can end in, and its status; a fault of medimg-edge itself is 500."""

_REFUSALS = (
    errors.BundleError,
    errors.ModelLoad,
    errors.ExtraMissing,
    errors.KeyInvalid,
    errors.RiskUnknown,
)
"""Of a bundle that was changed, or a runtime that was removed, since the service started; or of
options that do not fit the bundle."""

RETRY_AFTER_SECONDS = 2

REJECTED = frozenset(each.code for each in STATUS if issubclass(each, errors.Rejected))
"""The codes of images that can be read, and are not for the model."""

_BY_CODE = {each.code: each for each in STATUS}


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """What a request ended in. ``code`` is that of the command line; ``detail`` is for a person.

    prediction: the id under which the record holds that this image had no answer.
    """

    type: str
    title: str
    status: int
    code: str
    detail: str
    rejected: bool
    prediction: str | None = None


def problem(error: MedimgEdgeError, *, prediction: str | None = None) -> Response:
    """The response that tells an error."""
    status = STATUS.get(type(error), 503 if isinstance(error, _REFUSALS) else 500)
    told = Problem(
        type="about:blank",
        title=HTTPStatus(status).phrase,
        status=status,
        code=error.code,
        detail=error.message,
        rejected=error.code in REJECTED,
        prediction=prediction,
    )
    return Response(msgspec.json.encode(told), status, _headers(status), MEDIA_TYPE)


def error_of(code: str, message: str) -> MedimgEdgeError:
    """The error that the failure of a record tells of."""
    kind = _BY_CODE.get(code, MedimgEdgeError)
    error = kind(message)
    error.code = code
    return error


def _headers(status: int) -> dict[str, str]:
    """401: RFC 9110 11.6.1. 503: RFC 9110 10.2.3."""
    if status == 401:
        return {"WWW-Authenticate": "Bearer"}
    return {"Retry-After": str(RETRY_AFTER_SECONDS)} if status == 503 else {}
