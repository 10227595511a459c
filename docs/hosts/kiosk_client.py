"""A client of a medimg-edge kiosk, in one file: Python 3.11 or newer, and nothing to install.

    from kiosk_client import Kiosk, NotAnswered

    kiosk = Kiosk("http://127.0.0.1:8080")
    try:
        answer = kiosk.predict("chest.png")
    except NotAnswered as error:                       # the image has no answer
        print(error.code, error.detail)
    else:
        print(answer["record"]["decision"], answer["record"]["probability"])
        png = kiosk.heatmap(answer["id"])

or:  python3 kiosk_client.py [--url URL] [--token-file FILE] [--heatmaps DIR] IMAGE...

Whatever is interrupted is asked again under the same Idempotency-Key, so that an image is answered
once. What the answers mean: docs/kiosk-api.md of medimg-edge.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import ssl
import sys
import time
import urllib.parse
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PATIENCE_SECONDS = 60.0
"""For so long it is tried again, where that may help."""

PAUSE_SECONDS = 1.0
"""Between two tries, where the kiosk does not say (Retry-After)."""

LONGEST_PAUSE_SECONDS = 10.0


class KioskError(Exception):
    """A problem that the kiosk told (RFC 9457), or that it could not be reached.

    code: as in docs/kiosk-api.md, such as "input-truncated". detail: for a person. status: of HTTP,
    0 where there was none. prediction: the id under which its record has the image.
    """

    def __init__(
        self, code: str, detail: str, *, status: int = 0, prediction: str | None = None
    ) -> None:
        super().__init__(f"[{code}] {detail}")
        self.code, self.detail, self.status, self.prediction = code, detail, status, prediction


class NotAnswered(KioskError):
    """The image has no answer, and would have none if it were sent again."""


class Rejected(NotAnswered):
    """It could be read, and the model must not answer it: another part of the body, for example."""


class NotFound(KioskError):
    """There is no such prediction, or no picture of it any more."""


class NotAllowed(KioskError):
    """The token is missing or wrong, or the kiosk is not called by its name."""


class TryLater(KioskError):
    """It was tried for ``patience`` seconds: too many wait, the disk is full, it does not run."""


class Kiosk:
    """A kiosk's interface, version 1. Methods raise KioskError, and no other for what may happen.

    url: such as https://xray.clinic.lan:8443. token: of a kiosk that wants one. cafile: PEM, the
    authority of its certificate where this machine does not know it. patience: seconds for which
    it is tried again. Requests go to ``url`` and nowhere else: no proxy, no redirection.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8080",
        token: str | None = None,
        cafile: str | os.PathLike[str] | None = None,
        *,
        patience: float = PATIENCE_SECONDS,
    ) -> None:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url!r} is no URL of a kiosk, such as http://127.0.0.1:8080")
        self._host, self._port, self._patience = parts.hostname, parts.port, patience
        self._context = (
            ssl.create_default_context(cafile=cafile) if parts.scheme == "https" else None
        )
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    def predict(
        self,
        image: bytes | str | os.PathLike[str],
        *,
        frame: int | None = None,
        key: str | None = None,
    ) -> dict[str, Any]:
        """Answer an image: a path or the bytes of a PNG, JPEG, TIFF or DICOM file.

        frame: of a DICOM file that has several, from 1. key: an Idempotency-Key of your own, such
        as the image's id in your software; by default one for this call.

        Raises NotAnswered; OSError where the path cannot be read.
        """
        data = image if isinstance(image, bytes) else Path(image).read_bytes()
        headers = {
            "Content-Type": "application/octet-stream",
            "Idempotency-Key": key or uuid.uuid4().hex,
        }
        return self._json("POST", _path("/v1/predictions", frame=frame), data, headers)

    def prediction(self, prediction_id: str) -> dict[str, Any]:
        """An answer again. Raises NotFound."""
        return self._json("GET", f"/v1/predictions/{_quoted(prediction_id)}")

    def predictions(self, **filters: Any) -> Iterator[dict[str, Any]]:
        """All that the record has, the newest first.

        filters: status, decision, code, since, until (RFC 3339), input_sha256, acknowledged, and
        limit, how many are asked for at a time.
        """
        before = None
        while True:
            found = self._json("GET", _path("/v1/predictions", **{**filters, "before": before}))
            yield from found["predictions"]
            before = found["next"]
            if before is None:
                return

    def heatmap(
        self, prediction_id: str, *, label: str | None = None, layer: str = "overlay"
    ) -> bytes:
        """PNG: the heatmap over the image, or alone ("heat"). Raises NotFound."""
        path = f"/v1/predictions/{_quoted(prediction_id)}/heatmap"
        return self._asked("GET", _path(path, label=label, layer=layer))

    def acknowledge(self, prediction_id: str, comment: str = "") -> dict[str, Any]:
        """Say that somebody has seen it, with a comment that names no patient. Raises NotFound."""
        body = json.dumps({"comment": comment}).encode()
        path = f"/v1/predictions/{_quoted(prediction_id)}/acknowledgement"
        return self._json("PUT", path, body, {"Content-Type": "application/json"})

    def model(self) -> dict[str, Any]:
        """What answers, for whom it is, and how good it was."""
        return self._json("GET", "/v1/model")

    def is_ready(self) -> bool:
        """Whether it answers now; it is asked once."""
        try:
            return self._tried("GET", "/readyz", None, {})[0] == 200
        except OSError:
            return False

    def _json(self, *request: Any) -> dict[str, Any]:
        return json.loads(self._asked(*request))

    def _asked(
        self, method: str, path: str, body: bytes | None = None, headers: Any = None
    ) -> bytes:
        """The body of a good answer, after as many tries as there is patience for."""
        end = time.monotonic() + self._patience
        while True:
            try:
                status, found, pause = self._tried(method, path, body, headers or {})
            except OSError as error:
                status, found, pause = 0, b"", PAUSE_SECONDS
                problem: KioskError = TryLater("unreachable", f"{self._host}: {error}")
            else:
                if 200 <= status < 300:
                    return found
                problem = _problem(status, found)
            if not isinstance(problem, TryLater) or time.monotonic() + pause > end:
                raise problem
            time.sleep(pause)

    def _tried(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str]
    ) -> tuple[int, bytes, float]:
        """Status, body, and seconds until the next try. Raises OSError."""
        connection = self._connection()
        try:
            connection.request(method, path, body, {**self._headers, **headers})
            response = connection.getresponse()
            return response.status, response.read(), _pause(response.getheader("Retry-After"))
        except ssl.SSLCertVerificationError as error:  # no try will help
            raise NotAllowed("certificate", f"{self._host}: {error.verify_message}") from error
        except http.client.HTTPException as error:
            raise ConnectionError(f"the connection ended early: {error!r}") from error
        finally:
            connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        timeout = max(self._patience, PAUSE_SECONDS)
        if self._context is None:
            return http.client.HTTPConnection(self._host, self._port, timeout=timeout)
        return http.client.HTTPSConnection(
            self._host, self._port, timeout=timeout, context=self._context
        )


def _problem(status: int, body: bytes) -> KioskError:
    try:
        told = json.loads(body)
        code, detail = str(told["code"]), str(told["detail"])
    except (ValueError, TypeError, KeyError):
        return KioskError("not-a-kiosk", f"The answer was {status}, and no problem of a kiosk.")
    if told.get("rejected"):
        kind: type[KioskError] = Rejected
    elif told.get("prediction") or code == "body-too-large":
        kind = NotAnswered
    elif status in (503, 507) or code in ("key-in-use", "receive-deadline"):
        kind = TryLater
    else:
        kind = {
            401: NotAllowed,
            403: NotAllowed,
            421: NotAllowed,
            404: NotFound,
            410: NotFound,
        }.get(status, KioskError)
    return kind(code, detail, status=status, prediction=told.get("prediction"))


def _pause(retry_after: str | None) -> float:
    try:
        return min(max(float(retry_after or PAUSE_SECONDS), 0.0), LONGEST_PAUSE_SECONDS)
    except ValueError:  # a date
        return PAUSE_SECONDS


def _path(path: str, **query: Any) -> str:
    given = {
        name: str(value).lower() if isinstance(value, bool) else value
        for name, value in query.items()
        if value is not None
    }
    return f"{path}?{urllib.parse.urlencode(given)}" if given else path


def _quoted(text: str) -> str:
    return urllib.parse.quote(text, safe="")


def main() -> int:
    """Answer images, one line for each. Exit 0 where each has an answer."""
    parser = argparse.ArgumentParser(description="Have images answered by a medimg-edge kiosk.")
    parser.add_argument("images", nargs="+", metavar="IMAGE")
    parser.add_argument("--url", default="http://127.0.0.1:8080")
    parser.add_argument("--token-file", type=Path, help="its first line is the token")
    parser.add_argument("--cafile", help="PEM: the authority of the kiosk's certificate")
    parser.add_argument("--heatmaps", type=Path, metavar="DIR", help="write a PNG for each answer")
    told = parser.parse_args()
    token = told.token_file.read_text().split("\n")[0].strip() if told.token_file else None
    kiosk, exit_code = Kiosk(told.url, token, told.cafile), 0
    for image in told.images:
        try:
            answer = kiosk.predict(image)
            for each in answer["record"]["findings"]:
                print(f"{image}: {each['label']} {each['probability']:.3f} {each['decision']}")
            if told.heatmaps:
                told.heatmaps.mkdir(exist_ok=True)
                path = told.heatmaps / f"{answer['id']}.png"
                path.write_bytes(kiosk.heatmap(answer["id"]))
        except (KioskError, OSError) as error:
            print(f"{image}: no answer: {error}", file=sys.stderr)
            exit_code = 1
    return exit_code


if __name__ == "__main__":
    sys.exit(main())
