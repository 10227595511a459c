"""Small bundles of several versions, who signs them, and what is left in the store."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from medimg_edge import Classifier, golden, store
from medimg_edge.archive import pack
from medimg_edge.bundle import MANIFEST, Bundle
from medimg_edge.golden import Check
from medimg_edge.ssh_signature import PrivateKey, sign
from medimg_edge.store import Installed
from medimg_edge.trust import Trust
from tests.device.golden_bundle import with_golden_set
from tests.device.kiosk_images import png

NAME = "mean"
LOCKS = [".installing/lock", ".pointing/lock"]
"""What stays beside the bundles for good."""
IMAGE = png()

Build = Callable[..., Path]
"""The fixture ``mean_bundle``."""


class Signer:
    """A key and the folder of trusted keys of a clinic."""

    def __init__(self, folder: Path, name: str = "clinic") -> None:
        self.key, self.name = PrivateKey.new(), name
        self.trusted = folder / f"trusted-{name}"
        self.trusted.mkdir()
        (self.trusted / f"{name}.pub").write_text(f"{self.key.public.line}\n")

    @property
    def trust(self) -> Trust:
        return Trust.load(self.trusted)

    def sign(self, bundle: Path) -> Path:
        (bundle / "signatures").mkdir(exist_ok=True)
        signature = sign((bundle / MANIFEST).read_bytes(), self.key)
        (bundle / "signatures" / f"{self.name}.sig").write_bytes(signature)
        return bundle

    def revoke(self) -> None:
        (self.trusted / "revoked").write_text(f"{self.key.public.fingerprint}\n")


def release(build: Build, version: str, bias: float = 0.0, name: str = NAME) -> Path:
    """An unsigned bundle that answers ``bias`` more, in a folder of its version."""
    built = build([1.0, -1.0], [bias, -bias], version=version, name=name)
    folder = built.with_name(f"{name}-{version}")
    return with_golden_set(built.rename(folder))


def zipped(folder: Path) -> Path:
    path = folder.with_name(f"{folder.name}.zip")
    pack(Bundle.open(folder), path)
    return path


def check(folder: Path) -> Sequence[Check]:
    """The golden set, in this process, which is quicker."""
    return golden.verify(Bundle.open(folder))


def install(source: Path, trust: Trust, **options: object) -> Installed:
    return store.install(source, trust=trust, check=check, **options)  # type: ignore[arg-type]


def answer(bundle: str | Path = NAME) -> tuple[str, tuple[float, ...]]:
    """Which bundle answers, by its hash, and what."""
    prediction = Classifier(bundle).predict(IMAGE)
    return prediction.record.model.hash, tuple(each.probability for each in prediction.findings)


def left(state: Path) -> list[str]:
    """Every file and empty folder of the store, without the files of the bundles in slots."""
    folder = state / "bundles"
    found = set()
    for each in folder.rglob("*"):
        name = each.relative_to(folder)
        if len(name.parts) > 1 and name.parts[1] in ("a", "b", "c"):
            found.add("/".join(name.parts[:2]))
        elif not each.is_dir() or not any(each.iterdir()):
            found.add(name.as_posix())
    return sorted(found)


def kept(state: Path, *slots: str, name: str = NAME) -> list[str]:
    """What ``left`` is to be, with these slots in use."""
    return sorted([*LOCKS, f"{name}/active.json", *(f"{name}/{slot}" for slot in slots)])


def pointer(state: Path, name: str = NAME) -> Path:
    return state / "bundles" / name / "active.json"


def changed(path: Path, **values: object) -> None:
    """Write a JSON file with other values."""
    path.write_text(json.dumps({**json.loads(path.read_bytes()), **values}))


def copy(folder: Path, name: str) -> Path:
    return Path(shutil.copytree(folder, folder.with_name(name)))
