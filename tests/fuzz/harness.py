"""Mutate what a stranger may hand in, and let nothing out but our own errors.

    python -m tests.fuzz.harness TARGET SECONDS FOLDER [SEED]

Prints how many files were tried, how many were accepted, and the peak memory in MB. What is being
tried lies in FOLDER/input: a library may end this process, and what takes longer than HANG seconds
does. With one seed the files are the same on every machine.
"""

from __future__ import annotations

import faulthandler
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import NamedTuple

import numpy as np

from medimg_edge import engines
from medimg_edge.errors import MedimgEdgeError, ModelRefused
from medimg_edge.machine import peak_memory
from tests.fuzz import mutation, seeds

HANG = 20
MEMORY = 2**30
"""Bytes that the process may ever hold."""


class Target(NamedTuple):
    """What is tried. attempt: raises our errors for a bad file. shaped: see ``mutation``."""

    seeds: Callable[[], Iterator[bytes]]
    attempt: Callable[[bytes, Path], None]
    shaped: Sequence[mutation.Mutation] = ()
    places: Callable[[bytes], Sequence[int]] = lambda data: ()


def image(data: bytes, _: Path) -> None:
    """PNG, JPEG, TIFF, DICOM: whole, and as much as a small network needs."""
    from medimg_edge.reader import read_image

    for needed in (None, (32, 32, 1)):
        found = read_image(data, needed=needed)
        assert found.frames.dtype in (np.uint8, np.uint16, np.float32)
        assert np.isfinite(found.voi.grey(found.frames)).all()


def manifest(data: bytes, _: Path) -> None:
    """The only way in, and what is accepted comes out as it went in."""
    from medimg_edge.manifest import decode, encode

    found = decode(data)
    assert decode(encode(found)) == found


def archive(data: bytes, folder: Path) -> None:
    """Nothing lies beside the folder afterwards, and a bundle in it."""
    from medimg_edge.archive import unpack
    from medimg_edge.bundle import Bundle

    room = folder / "room"
    shutil.rmtree(room, ignore_errors=True)
    room.mkdir()
    (room / "bundle.zip").write_bytes(data)
    try:
        unpack(room / "bundle.zip", room / "bundle")
    finally:
        assert {each.name for each in room.iterdir()} <= {"bundle.zip", "bundle"}
        assert not any(each.is_symlink() for each in room.rglob("*"))
    Bundle.open(room / "bundle").check_contents()


def onnx(data: bytes, _: Path) -> None:
    """The check of the guard, against the manifest that fits most of the seeds."""
    from medimg_edge import onnx_guard

    _either(onnx_guard.require, data)


def tflite(data: bytes, _: Path) -> None:
    """The check of the guard."""
    from medimg_edge import tflite_guard

    _either(tflite_guard.require, data)


def onnx_run(data: bytes, _: Path) -> None:
    """What the guard accepts is loaded and run: not in CI, for it also tries ONNX Runtime."""
    _run(data, "onnx")


def tflite_run(data: bytes, _: Path) -> None:
    """The same of LiteRT."""
    _run(data, "tflite")


def _either(require: Callable, data: bytes) -> None:
    """By one of two manifests."""
    first, second = _manifests()
    try:
        require(data, first)
    except MedimgEdgeError:
        require(data, second)


def _run(data: bytes, kind: engines.Format) -> None:
    """By the first manifest that it fits."""
    first, second = _manifests()
    try:
        engine, shape = engines.load(data, kind, first), first.input.shape
    except ModelRefused:
        engine, shape = engines.load(data, kind, second), second.input.shape
    with engines.deadline(5):
        engine.run(np.full((1, *shape), 100, np.uint8))


def _manifests() -> list:
    from medimg_edge.manifest import decode
    from tests.device.hostile_models import manifest_of_mean

    if not _MANIFESTS:
        _MANIFESTS.append(decode((seeds.FROZEN / "manifest.json").read_bytes()))
        _MANIFESTS.append(manifest_of_mean().manifest)
    return _MANIFESTS


_MANIFESTS: list = []


def images() -> Iterator[bytes]:
    """Of all kinds."""
    for kind in (seeds.pngs, seeds.jpegs, seeds.tiffs, seeds.dicoms):
        yield from kind()


def _png_checksums(random: Random, data: bytes) -> bytes:
    return mutation.png_checksums(random, data) if data[1:4] == b"PNG" else data


def _sealed_again(random: Random, data: bytes) -> bytes:
    """Something before an archive's own hash changes, and the hash with it."""
    import hashlib

    mark = b"medimg-edge bundle, SHA-256 of all before: "
    at = data.rfind(mark)
    if at < 0:
        return data
    changed = bytearray(data[:at])
    for _ in range(random.choice((1, 2))):
        changed[-1 - random.randrange(min(len(changed), 600))] ^= 1 << random.randrange(8)
    return bytes(changed) + mark + hashlib.sha256(changed).hexdigest().encode()


def _json_in_archive(random: Random, data: bytes) -> bytes:
    """The manifest of an archive changes, and the archive is packed anew around it."""
    import io
    import zipfile

    try:
        with zipfile.ZipFile(io.BytesIO(data)) as packed:
            content = {each: packed.read(each) for each in packed.namelist()}
    except Exception:
        return data
    for name in content:
        if name.endswith("manifest.json"):
            content[name] = mutation.json_values(random, content[name])
    names = list(content)
    random.shuffle(names)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", random.choice((0, 8))) as packed:
        for name in names:
            given = random.choice((name, name, name, f"../{name}", name.upper(), f"/{name}"))
            packed.writestr(zipfile.ZipInfo(given), content[name])
    return file.getvalue()


def _flatbuffer_places(data: bytes) -> Sequence[int]:
    """Where the guard reads: elsewhere lie weights."""
    from medimg_edge import tflite_file

    read: set[int] = set()

    class Watched(tflite_file.Table):
        def _unpack(self, form: str, at: int) -> int:
            read.add(at)
            return super()._unpack(form, at)

    original, tflite_file.Table = tflite_file.Table, Watched
    try:
        tflite_file.read(data)
    except MedimgEdgeError:
        pass
    finally:
        tflite_file.Table = original
    return sorted(read)


TARGETS = {
    "image": Target(images, image, (_png_checksums,)),
    "manifest": Target(seeds.manifests, manifest, (mutation.json_values,) * 3),
    "archive": Target(seeds.archives, archive, (_sealed_again, _json_in_archive)),
    "onnx": Target(seeds.onnx_files, onnx, (mutation.protobuf,) * 3),
    "tflite": Target(seeds.tflite_files, tflite, (), _flatbuffer_places),
    "onnx-run": Target(seeds.onnx_files, onnx_run, (mutation.protobuf,) * 3),
    "tflite-run": Target(seeds.tflite_files, tflite_run, (), _flatbuffer_places),
}


def main(name: str, seconds: str, folder: str, seed: str = "0") -> None:
    """Raises what escapes."""
    target, place = TARGETS[name], Path(folder)
    random = Random(int(seed))
    begun = list(target.seeds())
    places = [target.places(each) for each in begun]
    tried = accepted = 0
    for data in begun:  # as they are: each is either accepted or refused by one of our errors
        accepted += _attempt(target, data, place)
    assert accepted, "no seed is accepted: what is mutated would be refused for another reason"
    end = time.monotonic() + float(seconds)
    while time.monotonic() < end:
        index = random.randrange(len(begun))
        data = mutation.mutated(random, begun[index], begun, places[index], target.shaped)
        accepted += _attempt(target, data, place)
        tried += 1
    peak = peak_memory() or 0
    print(json.dumps({"tried": tried, "accepted": accepted, "megabytes": peak >> 20}))
    assert peak < MEMORY, f"{peak >> 20} MB were held"


def _attempt(target: Target, data: bytes, folder: Path) -> bool:
    """Whether it was accepted."""
    (folder / "input").write_bytes(data)
    with (folder / "traceback").open("w") as traceback:
        faulthandler.dump_traceback_later(HANG, exit=True, file=traceback)
        try:
            target.attempt(data, folder)
        except MedimgEdgeError:
            return False
        finally:
            faulthandler.cancel_dump_traceback_later()
    return True


def limit() -> None:
    """No more addresses than the peak may be, and what libraries map."""
    if sys.platform == "linux":
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (3 * MEMORY, 3 * MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(2**26))
    limit()
    main(*sys.argv[1:])
