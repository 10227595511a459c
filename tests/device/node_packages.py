"""Packages of npm that tests run with, kept from one run to the next."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

INSTALL = "install --ignore-scripts --no-audit --no-fund --no-package-lock --fetch-retries=0"


def installed(package: Path, kept: Path) -> Path:
    """A folder with what a package.json names, installed once for each content that it has had.

    Skips the test where npm is missing or cannot install it.
    """
    if not shutil.which("npm"):
        pytest.skip("npm is not installed")
    done = kept / hashlib.sha256(package.read_bytes()).hexdigest()[:16]
    if not done.exists():
        with TemporaryDirectory(dir=kept) as folder:
            prefix = Path(folder, "prefix")
            prefix.mkdir()
            shutil.copy(package, prefix)
            _install(prefix)
            with suppress(OSError):  # another test process was faster
                prefix.rename(done)
    return done


def _install(prefix: Path) -> None:
    command = ["npm", *INSTALL.split(), "--prefix", str(prefix)]
    try:
        npm = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=prefix)
    except subprocess.TimeoutExpired:
        pytest.skip("npm did not finish installing")
    if npm.returncode != 0:
        errors = [line for line in npm.stderr.splitlines() if line.startswith("npm error")]
        pytest.skip(f"npm cannot install: {' '.join(errors)[:200]}")
