"""MedMNIST: what its authors publish about the twelve 2-D sets, and how to fetch them.

Addresses, MD5 sums and label names are those of MedMNIST v2 and MedMNIST+ (Yang et al., Scientific
Data 10:41, 2023; https://zenodo.org/records/10519652). Names that enumerate ("normal, benign") are
written with "or", so that they can be listed with commas. DermaMNIST is CC BY-NC 4.0, the others
are CC BY 4.0.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pooch
import requests

from medimg_edge.errors import DataInvalid, DownloadFailed, WriteError
from medimg_export.cache_folder import cache_folder

SIZES = (28, 64, 128, 224)
RECORD = "https://zenodo.org/records/10519652"
TIMEOUT = 30
"""Seconds without a byte before a download is given up."""

ORGANS = (
    "bladder",
    "femur-left",
    "femur-right",
    "heart",
    "kidney-left",
    "kidney-right",
    "liver",
    "lung-left",
    "lung-right",
    "pancreas",
    "spleen",
)


@dataclass(frozen=True)
class Publication:
    """One set. ``labels`` in the order of the file's numbers, ``md5`` in the order of ``SIZES``."""

    labels: tuple[str, ...]
    md5: tuple[str, str, str, str]
    positive: str | None = None


SETS = {
    "pathmnist": Publication(
        (
            "adipose",
            "background",
            "debris",
            "lymphocytes",
            "mucus",
            "smooth muscle",
            "normal colon mucosa",
            "cancer-associated stroma",
            "colorectal adenocarcinoma epithelium",
        ),
        (
            "a8b06965200029087d5bd730944a56c1",
            "55aa9c1e0525abe5a6b9d8343a507616",
            "ac42d08fb904d92c244187169d1fd1d9",
            "2c51a510bcdc9cf8ddb2af93af1eadec",
        ),
    ),
    "chestmnist": Publication(
        (
            "atelectasis",
            "cardiomegaly",
            "effusion",
            "infiltration",
            "mass",
            "nodule",
            "pneumonia",
            "pneumothorax",
            "consolidation",
            "edema",
            "emphysema",
            "fibrosis",
            "pleural",
            "hernia",
        ),
        (
            "02c8a6516a18b556561a56cbdd36c4a8",
            "9de6cd0b934ebb5b7426cfba5efbae16",
            "db107e5590b27930b62dbaf558aebee3",
            "45bd33e6f06c3e8cdb481c74a89152aa",
        ),
    ),
    "dermamnist": Publication(
        (
            "actinic keratoses and intraepithelial carcinoma",
            "basal cell carcinoma",
            "benign keratosis-like lesions",
            "dermatofibroma",
            "melanoma",
            "melanocytic nevi",
            "vascular lesions",
        ),
        (
            "0744692d530f8e62ec473284d019b0c7",
            "b70a2f5635c6199aeaa28c31d7202e1f",
            "2defd784463fa5243564e855ed717de1",
            "8974907d8e169bef5f5b96bc506ae45d",
        ),
    ),
    "octmnist": Publication(
        ("choroidal neovascularization", "diabetic macular edema", "drusen", "normal"),
        (
            "c68d92d5b585d8d81f7112f81e2d0842",
            "e229e9440236b774d9f0dfef9d07bdaf",
            "0a97e76651ace45c5d943ee3f65b63ae",
            "abc493b6d529d5de7569faaef2773ba3",
        ),
    ),
    "pneumoniamnist": Publication(
        ("normal", "pneumonia"),
        (
            "28209eda62fecd6e6a2d98b1501bb15f",
            "8f4eceb4ccffa70c672198ea285246c6",
            "05b46931834c231683c68f40c47b2971",
            "d6a3c71de1b945ea11211b03746c1fe1",
        ),
        positive="pneumonia",
    ),
    "retinamnist": Publication(  # grades of diabetic retinopathy
        ("0", "1", "2", "3", "4"),
        (
            "bd4c0672f1bba3e3a89f0e4e876791e4",
            "afda852cc34dcda56f86ad2b2457dbcc",
            "e48e916a24454daf90583d4e6efb1a18",
            "eae7e3b6f3fcbda4ae613ebdcbe35348",
        ),
    ),
    "breastmnist": Publication(
        ("malignant", "normal or benign"),
        (
            "750601b1f35ba3300ea97c75c52ff8f6",
            "742edef2a1fd1524b2efff4bd7ba9364",
            "363e4b3f8d712e9b5de15470a2aaadf1",
            "b56378a6eefa9fed602bb16d192d4c8b",
        ),
        positive="malignant",
    ),
    "bloodmnist": Publication(
        (
            "basophil",
            "eosinophil",
            "erythroblast",
            "immature granulocytes",  # myelocytes, metamyelocytes and promyelocytes
            "lymphocyte",
            "monocyte",
            "neutrophil",
            "platelet",
        ),
        (
            "7053d0359d879ad8a5505303e11de1dc",
            "2b94928a2ae4916078ca51e05b6b800b",
            "adace1e0ed228fccda1f39692059dd4c",
            "b718ff6835fcbdb22ba9eacccd7b2601",
        ),
    ),
    "tissuemnist": Publication(
        (
            "collecting duct or connecting tubule",
            "distal convoluted tubule",
            "glomerular endothelial cells",
            "interstitial endothelial cells",
            "leukocytes",
            "podocytes",
            "proximal tubule segments",
            "thick ascending limb",
        ),
        (
            "ebe78ee8b05294063de985d821c1c34b",
            "123ece2eba09d0aa5d698fda57103344",
            "61b955355d7425a89687b06cca3ce0c2",
            "b077128c4a949f0a4eb01517f9037b9c",
        ),
    ),
    "organamnist": Publication(
        ORGANS,
        (
            "68e3f8846a6bd62f0c9bf841c0d9eacc",
            "2dcccc29b88e6da5a01161ef20cda288",
            "eeae80d0a227a8d099027e1b3cfd3b60",
            "50747347e05c87dd3aaf92c49f9f3170",
        ),
    ),
    "organcmnist": Publication(
        ORGANS,
        (
            "b9ceb9546e10131b32923c5bbeaea2b1",
            "3ce34a8724ea6f548e6db4744d03b6a9",
            "773c1f009daa3fe5d9a2a201b2a7ed94",
            "050f5e875dc056f6768abf94ec9995d1",
        ),
    ),
    "organsmnist": Publication(
        ORGANS,
        (
            "9ab87b696fb54e2a387ebe992d6ed5f1",
            "53a6d115339d874c25e309a994ff46d3",
            "ded0c5fa01a95dc4978b956f613e9b8e",
            "b354719e553fbbb2513d5533f52a4cb1",
        ),
    ),
}


def published(path: Path) -> Publication | None:
    """The set whose published file name ``path`` has, such as ``breastmnist_224.npz``."""
    match = re.fullmatch(r"([a-z]+)(?:_(?:64|128|224))?\.npz", path.name)
    return SETS.get(match[1]) if match else None


def get(
    name: str,
    size: int = 28,
    root: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Fetch a set into ``root`` (default: ``medmnist`` in the cache folder) unless it is there.

    ``progress`` is called with bytes fetched and bytes in all. What lies at the returned path has
    the published MD5. Raises DataInvalid (unknown name or size), DownloadFailed, WriteError.
    """
    if name not in SETS or size not in SIZES:
        raise DataInvalid(
            f"{name!r} at {size} px is not published; the sets are {', '.join(SETS)}, "
            f"the sizes {', '.join(map(str, SIZES))}."
        )
    file_name = f"{name}.npz" if size == 28 else f"{name}_{size}.npz"
    folder = root or cache_folder() / "medmnist"
    url = f"{RECORD}/files/{file_name}?download=1"
    return fetch(url, SETS[name].md5[SIZES.index(size)], folder / file_name, progress)


def fetch(
    url: str, md5: str, path: Path, progress: Callable[[int, int], None] | None = None
) -> Path:
    """Download ``url`` to ``path``, where a whole file with that MD5 appears or nothing does.

    A file that is there and has the MD5 is not fetched again; one with another MD5 is replaced
    only by the right one. Raises DownloadFailed, WriteError.
    """
    bar: Any = _Bar(progress) if progress else False
    downloader: Any = pooch.HTTPDownloader(timeout=TIMEOUT, progressbar=bar, chunk_size=1 << 20)
    pooch.get_logger().setLevel("ERROR")  # it would announce the download on standard error
    advice = f"Download {url} by other means (MD5 {md5}) and put it at {path}."
    try:
        pooch.retrieve(url, f"md5:{md5}", path.name, path.parent, downloader=downloader)
    except requests.RequestException as error:  # an OSError too: before it
        raise DownloadFailed(
            f"{path.name} could not be fetched ({_reason(error)}). {advice}"
        ) from error
    except ValueError as error:
        raise DownloadFailed(
            f"What was fetched as {path.name} does not have the published MD5. {advice}"
        ) from error
    except OSError as error:
        raise WriteError(
            f"{path} could not be written ({error}). Make room or choose another folder."
        ) from error
    return path


def _reason(error: requests.RequestException) -> str:
    """A few words: requests' own messages run over several lines of nested representations."""
    if error.response is not None:
        return f"the server answered {error.response.status_code}"
    if isinstance(error, requests.Timeout):
        return f"no answer within {TIMEOUT} s"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the connection was cut"
    return "no connection"


class _Bar:
    """pooch's idea of a progress bar (the four members of tqdm that it uses)."""

    def __init__(self, progress: Callable[[int, int], None]):
        self.total = 0
        self._done = 0
        self._progress = progress

    def update(self, count: int) -> None:
        self._done = min(self._done + count, self.total)
        self._progress(self._done, self.total)

    def reset(self) -> None:
        """Before its last update pooch starts over."""
        self._done = 0

    def close(self) -> None:
        """Nothing to release."""
