"""Whether this machine can answer, and what it lacks.

What is installed is tried in processes of their own: a runtime that is not for this processor ends
its process.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from medimg_edge import machine, models, state

DISTRIBUTION = "medimg-edge"
BUILD_YEAR = 2026
"""No clock can rightly show an earlier one."""

YEARS_OF_USE = 20
ARCHITECTURES = ("x86_64", "aarch64", "AMD64", "arm64")
MEMORY_NEEDED = 160 * 2**20
"""What one process holds while it answers with the shipped bundle, and some air."""

PACKAGES = {
    "numpy": "numpy",
    "opencv-python-headless": "cv2",
    "simplejpeg": "simplejpeg",
    "pydicom": "pydicom",
    "msgspec": "msgspec",
    "typer": "typer",
    "onnxruntime": "onnxruntime",
}
"""Without any of these there is no answer: the distribution, and what is imported of it."""

OTHER_OPENCV = ("opencv-python", "opencv-contrib-python", "opencv-contrib-python-headless")
INT8 = {"AVX-VNNI", "AVX-512 VNNI", "AMX int8", "NEON dot product", "int8 matrix multiply"}
_VERSION = "from medimg_edge import engines; engines.RUNTIMES[{!r}].version()"
SECONDS = 120
"""An import or an answer that takes longer does not come."""

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. ``failed`` is what would stop an answer."""

    name: str
    status: Literal["ok", "warning", "failed"]
    found: str
    advice: str = ""


def examine(progress: Progress | None = None) -> list[Finding]:
    """Look at everything; decoders, and an answer, only where all packages can be imported."""
    findings = [*_system(), *_memory(), *_clock(), *_places()]
    packages = []
    for at, (name, module) in enumerate(PACKAGES.items(), start=1):
        if progress:
            progress("importing", at, len(PACKAGES))
        packages.append(_package(name, module))
    findings += [*packages, *_opencv()]
    if all(each.status != "failed" for each in packages):
        if progress:
            progress("answering", 0, 0)
        findings += [*_extras(), *_decoders(), _answer()]
    return findings


def _system() -> Iterator[Finding]:
    bits = 64 if sys.maxsize > 2**32 else 32
    here = machine.this_machine()
    yield Finding("python", "ok", f"{platform.python_version()}, {bits} bit, {sys.executable}")
    if here.architecture in ARCHITECTURES and bits == 64:
        yield Finding("architecture", "ok", f"{here.architecture}, {platform.system()}")
    else:
        yield Finding(
            "architecture",
            "warning",
            f"{here.architecture}, {bits} bit, {platform.system()}",
            f"the runtimes are built for {', '.join(ARCHITECTURES[:2])} in 64 bit",
        )
    quick = INT8.intersection(here.features)
    yield Finding(
        "processor",
        "ok" if quick else "warning",
        f"{here.cpu}: {', '.join(here.features) or 'no known features'}",
        "" if quick else "no int8 dot product: int8 may be slower than float32; run tune",
    )
    yield Finding("cores", "ok", f"{here.cores} that this process may use")


def _memory() -> Iterator[Finding]:
    memory = machine.memory()
    known = {"total": memory.total, "available": memory.available, "cgroup limit": memory.limit}
    told = {name: size for name, size in known.items() if size is not None}
    least = min(told.values(), default=None)
    little = least is not None and least < MEMORY_NEEDED
    yield Finding(
        "memory",
        "warning" if little else "ok",
        ", ".join(f"{size // 2**20:,} MB {name}" for name, size in told.items()) or "unknown",
        f"an answer needs {MEMORY_NEEDED // 2**20} MB" if little else "",
    )


def _clock() -> Iterator[Finding]:
    year = time.gmtime().tm_year
    wrong = not BUILD_YEAR <= year <= BUILD_YEAR + YEARS_OF_USE
    yield Finding(
        "clock",
        "warning" if wrong else "ok",
        time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
        f"this release is of {BUILD_YEAR}: set the clock" if wrong else "",
    )


def _places() -> Iterator[Finding]:
    advice = "set TMPDIR to a folder that may be written"
    try:
        yield _place("temporary files", Path(tempfile.gettempdir()), advice)
    except FileNotFoundError as error:
        yield Finding("temporary files", "warning", f"none: {error.strerror}", advice)
    kept = state.folder()
    advice = f"tune cannot keep its choice: set {state.VARIABLE} to a folder that may be written"
    if kept is None:
        yield Finding("state folder", "warning", "none: this user has no home", advice)
    else:
        yield _place("state folder", kept, advice)
    readable = os.access(models.FOLDER, os.R_OK | os.X_OK)
    writable = os.access(models.FOLDER, os.W_OK)
    yield Finding(
        "shipped models",
        "ok" if readable else "failed",
        f"{models.FOLDER}, {'may be written' if writable else 'read only'}",
        "" if readable else "make the folder readable for this user",
    )


def _place(name: str, folder: Path, advice: str) -> Finding:
    """Whether a file can be written there, or in what there is of its path."""
    try:
        there = next(each for each in (folder, *folder.absolute().parents) if each.exists())
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(b"medimg-edge")
    except OSError as error:
        return Finding(name, "warning", f"{folder}: {error.strerror}", advice)
    return Finding(name, "ok", f"{folder}")


def _package(name: str, module: str) -> Finding:
    """Import it, and compare its version with what this release asks for."""
    if failure := _failure("-c", f"import {module}"):
        return Finding(name, "failed", failure, f"install it anew: pip install '{_wanted(name)}'")
    version = _version(name)
    asked = f"this release asks for {_wanted(name)}"
    if version is None:  # the module is there, so another distribution brings it
        return Finding(name, "warning", "of another distribution", asked)
    if not _fits(version, _wanted(name)):
        return Finding(name, "warning", version, asked)
    return Finding(name, "ok", version)


def _opencv() -> Iterator[Finding]:
    others = [name for name in OTHER_OPENCV if _version(name) is not None]
    if others:
        yield Finding(
            "opencv",
            "warning",
            f"{', '.join(others)} beside opencv-python-headless",
            "they write over each other's files: keep one of them",
        )


def _extras() -> Iterator[Finding]:
    """The other runtimes, and the workstation. None of them is needed."""
    from medimg_edge import engines

    for runtime, known in engines.RUNTIMES.items():
        if runtime in PACKAGES:
            continue
        install = f"pip install 'medimg-edge[{runtime}]'"
        if find_spec(known.package) is None:
            yield Finding(f"{runtime} (optional)", "ok", f"not installed; {install} adds it")
        elif failure := _failure("-c", _VERSION.format(runtime)):
            yield Finding(f"{runtime} (optional)", "warning", failure, f"anew: {install}")
        else:
            yield Finding(f"{runtime} (optional)", "ok", engines.version(runtime) or "")
    version = _version("tensorflow")
    found = f"tensorflow {version}" if version else "not installed: this is a device"
    yield Finding("workstation (optional)", "ok", found)


def _decoders() -> Iterator[Finding]:
    """Decode a picture of each format that ``infer`` reads."""
    import cv2
    import numpy as np
    import simplejpeg

    from medimg_edge.errors import MedimgEdgeError
    from medimg_edge.reader import read_image

    grey = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)
    shown = (grey // 16).astype(np.uint8)
    dicom = next((models.FOLDER / models.DEFAULT).glob("golden/*.dcm"))
    pictures = {
        "PNG": cv2.imencode(".png", grey)[1].tobytes(),
        "JPEG": simplejpeg.encode_jpeg(shown[..., None], colorspace="GRAY"),
        "TIFF": cv2.imencode(".tif", grey)[1].tobytes(),
        "DICOM": dicom.read_bytes(),
    }
    read, failed = [], []
    for name, data in pictures.items():
        try:
            read_image(data)
            read.append(name)
        except MedimgEdgeError as error:
            failed.append(f"{name}: {error}")
    if failed:
        yield Finding("decoders", "failed", "; ".join(failed), "install opencv and pydicom anew")
    else:
        from medimg_edge.dicom import encoded

        compressions = ", ".join(encoded.decodable())
        yield Finding("decoders", "ok", f"{', '.join(read)}; in DICOM: plain, {compressions}")


def _answer() -> Finding:
    """The golden set of the shipped bundle, as ``verify`` answers it."""
    bundle = str(models.FOLDER / models.DEFAULT)
    if failure := _failure("-m", "medimg_edge.cli", "--quiet", "verify", bundle):
        return Finding("an answer", "failed", failure, "the shipped bundle must not be used here")
    return Finding("an answer", "ok", f"{models.DEFAULT} gives its golden answers")


def _failure(*arguments: str) -> str:
    """What a Python process complains of; empty where it ends well."""
    try:
        done = subprocess.run(
            [sys.executable, *arguments], capture_output=True, text=True, timeout=SECONDS
        )
    except subprocess.TimeoutExpired:
        return f"no end after {SECONDS} s"
    if done.returncode < 0:
        return f"ended by signal {-done.returncode}: not built for this processor, or no memory"
    lines = done.stderr.strip().splitlines()
    return (lines[-1] if lines else f"exit {done.returncode}") if done.returncode else ""


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _wanted(name: str) -> str:
    """A package and its versions as this release's own metadata asks for them."""
    try:
        required = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:  # run from a source folder
        return name
    fitting = (each for each in required if re.match(rf"{re.escape(name)}(?![\w.-])", each))
    return next(fitting, name)


def _fits(version: str, wanted: str) -> bool:
    """Whether a version is within bounds such as ``name>=1.2,<2``."""
    compare = {">=": int.__ge__, "<": int.__lt__}
    for operator, bound in re.findall(r"(>=|<)\s*([\d.]+)", wanted):
        order = (_numbers(version) > _numbers(bound)) - (_numbers(version) < _numbers(bound))
        if not compare[operator](order, 0):
            return False
    return True


def _numbers(version: str) -> list[int]:
    return [int(each) for each in re.findall(r"\d+", version.split("+")[0])]
