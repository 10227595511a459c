"""A start of what answers: of which bundle it is, and that it is counted where that is installed.

Only the process that answers imports it, for ``store`` loads native libraries.
"""

from __future__ import annotations

from pathlib import Path

from medimg_edge.bundle import Bundle
from medimg_edge.errors import (
    ArtifactUnknown,
    ExtraMissing,
    FilesDiffer,
    KeyInvalid,
    MachineFault,
    MedimgEdgeError,
    ProfileInvalid,
    ReferenceMissing,
    RiskUnknown,
    SignatureMissing,
    SignerRevoked,
    SignerUnknown,
    StoreDamaged,
)
from medimg_edge.kiosk.messages import Setup
from medimg_edge.kiosk.named import may_go_back
from medimg_edge.trust import Standing, Trust, require

_NOT_ITS_FAULT = (
    ArtifactUnknown,
    ExtraMissing,
    KeyInvalid,
    MachineFault,
    ProfileInvalid,
    ReferenceMissing,
    RiskUnknown,
    SignatureMissing,
    SignerRevoked,
    SignerUnknown,
)
"""What an operator decided or has to change: to go back to another bundle would hide it."""


class Start:
    """Counted from its construction on, until ``ended_well``, where the setup names what it is.

    folder, hash: of the bundle. notes: what the operator should read. Construction raises
    StoreDamaged.
    """

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._is_counted = False
        self.folder, self.hash = setup.bundle, setup.hash
        self.notes: list[str] = []
        if setup.name is not None:
            self._count(setup.name)

    def _count(self, name: str) -> None:
        from medimg_edge import installed, store  # here: most starts are of a folder

        if installed.find(name) is None:
            return
        active = store.begin_start(name)
        self._is_counted = True
        self.folder, self.hash = str(active.folder), active.hash
        if active.note:
            self.notes.append(active.note)

    def opened(self) -> tuple[Bundle, Standing]:
        """The bundle, and who signed it. Raises what ``Bundle.open`` and ``trust.require`` do."""
        bundle = Bundle.open(self.folder)
        if self.hash not in (None, bundle.hash):
            kind = StoreDamaged if self._is_counted else FilesDiffer
            raise kind(
                f"{self.folder} holds another bundle than the one that answered or was installed. "
                "Install it anew."
            )
        self.hash = bundle.hash
        setup = self._setup
        standing = require(
            bundle, Trust.load(_path(setup.trusted)), allow_unsigned=setup.allow_unsigned
        )
        if standing.status != "trusted":
            self.notes.append(f"{standing.sentence} It answers because of --allow-unsigned.")
        return bundle, standing

    def ended_well(self) -> None:
        """It answers."""
        if self._is_counted:
            from medimg_edge import store

            assert self._setup.name is not None
            assert self.hash is not None
            store.started(self._setup.name, self.hash)

    def may_pass(self, error: MedimgEdgeError) -> bool:
        """Whether another start may end well, although this one ended in an error of the bundle."""
        if isinstance(error, _NOT_ITS_FAULT):
            self.ended_well()
            return False
        return self._is_counted and may_go_back(self._setup.name)


def _path(path: str | None) -> Path | None:
    return None if path is None else Path(path)
