"""Names for DICOM UIDs that do not give the UIDs away."""

from __future__ import annotations

import hashlib
import hmac

from medimg_edge.errors import WriteError
from medimg_edge.secret import BYTES

CHARACTERS = 32


class Pseudonyms:
    """A site's names for UIDs: the same for the same UID, and another with another salt.

    salt: BYTES bytes that only the site knows. Without it nobody can try UIDs until one fits.

    Construction raises WriteError.
    """

    def __init__(self, salt: bytes) -> None:
        if len(salt) != BYTES:
            raise WriteError(
                f"The salt has {len(salt)} bytes; it has to have {BYTES}. Restore it, or "
                "remove it for a new one: what was received before is then not known again."
            )
        self._salt = salt

    def of(self, uid: str) -> str:
        """A UID -> 32 hexadecimal characters: half of its HMAC-SHA256."""
        return hmac.new(self._salt, uid.encode(), hashlib.sha256).hexdigest()[:CHARACTERS]
