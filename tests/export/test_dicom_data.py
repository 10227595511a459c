"""Data sets of DICOM files: the same reading as a device's, and patients kept together."""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from medimg_edge.errors import TooFewImages
from medimg_edge.preprocess import preprocess
from medimg_edge.reader import read_image
from medimg_export.dataset import Dataset, open_dataset
from medimg_export.phantom_dicom import encode
from medimg_export.prepared import prepare
from medimg_export.recipe import Recipe, override

LABELS = ("normal", "pneumonia")
SECRET = "MUELLER-"
PATIENTS, IMAGES = 20, 3  # of each
RECIPE = override(Recipe(), pixels={"size": 32}, training={"backbone": "tiny"})


def radiograph(number: int, label: str, patient: str, **header: object) -> bytes:
    """Noise, and a bright square for a finding; some are MONOCHROME1."""
    pixels = np.random.default_rng(number).integers(0, 20000, (48, 48), np.uint16)
    if label == "pneumonia":
        pixels[12:30, 12:30] = 60000
    data = encode(pixels, patient, bits=12, inverted=number % 4 == 0)
    if not header:
        return data
    dataset, buffer = dcmread(BytesIO(data)), BytesIO()
    for keyword, value in header.items():
        setattr(dataset, keyword, value)
    dataset.save_as(buffer)
    return buffer.getvalue()


def write(root: Path, name: str, data: bytes) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders; a third of the files has no suffix, as archives export them."""
    root = tmp_path_factory.mktemp("archive")
    for number in range(PATIENTS * IMAGES):
        label = LABELS[number % 2]
        name = f"IM{number:06}" if number % 3 == 0 else f"{number}.dcm"
        patient = f"{SECRET}{number // IMAGES}"
        write(root, f"{label}/{name}", radiograph(number, label, patient))
    return root


@pytest.fixture(scope="session")
def sheet(archive: Path) -> Path:
    """The same images by a CSV beside their folder."""
    path = archive.parent / f"{archive.name}.csv"
    files = sorted(each for each in archive.rglob("*") if each.is_file())
    lines = [f"{each.relative_to(path.parent)},{each.parent.name}" for each in files]
    path.write_text("\n".join(["path,label", *lines]))
    return path


def codes(dataset: Dataset) -> dict[str, str]:
    return {problem.name: problem.code for problem in dataset.problems}


def notes(dataset: Dataset) -> str:
    return "\n".join(dataset.notes)


def test_headers_tell_patients_apart(archive, sheet):
    for source in (archive, sheet):
        dataset = open_dataset(source)
        images = defaultdict(set)
        for sample in dataset.samples:
            assert isinstance(sample.source, Path)
            images[sample.group].add(dcmread(sample.source).PatientID)
        assert len(images) == PATIENTS
        assert all(len(patients) == 1 for patients in images.values())
        assert SECRET not in repr(dataset.samples)
        assert f"tell {PATIENTS} patients apart" in notes(dataset)
        assert "Nothing says" not in notes(dataset)


def test_a_header_without_a_patient_stands_alone(tmp_path):
    for number, patient in enumerate(["7", "", "7 ", "", "8", "8"]):
        write(tmp_path, f"{LABELS[number % 2]}/{number}.dcm", radiograph(number, "normal", patient))
    groups = {sample.name: sample.group for sample in open_dataset(tmp_path).samples}
    assert groups["normal/0.dcm"] == groups["normal/2.dcm"]
    assert groups["normal/4.dcm"] == groups["pneumonia/5.dcm"]
    assert groups["pneumonia/1.dcm"] == "pneumonia/1.dcm"
    assert groups["pneumonia/3.dcm"] == "pneumonia/3.dcm"
    assert "2 of 6 images have no group" in notes(open_dataset(tmp_path))


def test_what_a_person_says_of_groups_goes_before(archive, sheet, tmp_path):
    by_pattern = open_dataset(archive, group_pattern="[0-9]$|[0-9](?=[.])")
    assert len({sample.group for sample in by_pattern.samples}) == 10
    path = sheet.with_name("grouped.csv")
    header, first, *rest = sheet.read_text().split("\n")
    path.write_text("\n".join([f"{header},group", f"{first},A", *(f"{each}," for each in rest)]))
    by_sheet = open_dataset(path)
    assert by_sheet.samples[0].group == "A"
    assert all(sample.group == sample.name for sample in by_sheet.samples[1:])
    assert "headers" not in notes(by_sheet)


# --- what is left out ---


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Radiographs, and among them what no chest model reads."""
    for number in range(8):
        label = LABELS[number % 2]
        write(tmp_path, f"{label}/{number}.dcm", radiograph(number, label, str(number)))
    others = {"CT": "CT", "CR": "CR", "strange": "NO SUCH"}
    for number, (name, modality) in enumerate(others.items(), 100):
        write(tmp_path, f"normal/{name}", radiograph(number, "normal", "0", Modality=modality))
    return tmp_path


def test_another_modality_is_left_out(mixed):
    """By the recipe's card, as a device refuses it; a word that means nothing is no reason."""
    dataset = open_dataset(mixed, modality=("CR", "DX"))
    assert codes(dataset) == {"normal/CT": "wrong-modality"}
    assert len(dataset.samples) == 10


def test_nothing_but_another_modality(archive):
    with pytest.raises(TooFewImages, match="are 60 DX; the recipe is for CT, MR"):
        open_dataset(archive, modality=("CT", "MR"))


def test_several_modalities_are_told(mixed):
    dataset = open_dataset(mixed)
    assert not dataset.problems
    assert "several modalities: 1 CR, 1 CT, 8 DX." in notes(dataset)


def test_check_names_every_file_that_cannot_be_used(mixed, tmp_path, called):
    whole = radiograph(200, "normal", "1")
    write(mixed, "normal/cut.dcm", whole[:-200])
    report = dcmread(BytesIO(whole))
    del report.PixelData, report.Rows
    report.save_as(mixed / "normal" / "report.dcm")
    cine = dcmread(BytesIO(whole))
    cine.NumberOfFrames, cine.PixelData = 2, 2 * cine.PixelData
    cine.save_as(mixed / "normal" / "cine.dcm")
    recipe = write(tmp_path, "chest.toml", b'[card]\nmodality = ["DX", "CR"]\n')
    done = called("data", "check", mixed, "--size", 32, "--recipe", recipe)
    found = dict(
        line.rsplit(" ", 1)
        for line in (each.replace(":", " ", 1) for each in done.stdout.splitlines())
        if line.endswith("]") and not line.startswith("note")
    )
    said = {name.split()[0]: code for name, code in found.items()}
    assert said == {
        "normal/CT": "[wrong-modality]",
        "normal/cut.dcm": "[input-truncated]",
        "normal/report.dcm": "[dicom-no-pixels]",
        "normal/cine.dcm": "[input-unsupported]",
    }


# --- the whole way ---


def test_from_an_archive_to_a_site_profile(archive, sheet, tmp_path, called, monkeypatch):
    """Train, export, evaluate, calibrate; no patient's ID in what is written or said."""
    monkeypatch.setenv("MEDIMG_EDGE_STATE", str(tmp_path / "state"))
    run, bundle, out = (tmp_path / name for name in ("run", "bundle", "out"))
    options = ("--backbone", "tiny", "--size", 32, "--epochs", 2)
    profile = tmp_path / "ours.json"
    commands = (
        ("train", archive, "--out", run, *options),
        ("export", run, "--out", bundle),
        ("evaluate", bundle, archive, "--out", out, "--bootstrap", 20),
        ("calibrate", bundle, sheet, "--out", profile),
    )
    said = ""
    for words in commands:
        done = called(*words)
        assert done.returncode == 0, (words[0], done.stderr)
        said += done.stdout + done.stderr
    splits = json.loads((run / "run.json").read_bytes())["dataset"]["splits"]
    assert sum(found["groups"] for found in splits.values()) == PATIENTS
    with (out / "answers.csv").open(newline="") as file:
        tested = {row["group"] for row in csv.DictReader(file)}
    assert len(tested) == splits["test"]["groups"]
    assert json.loads(profile.read_bytes())["data"]["patients"] == PATIENTS
    assert SECRET not in said
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) > 20
    assert [path for path in written if SECRET.encode() in path.read_bytes()] == []


def test_deidentified_copies_are_the_same_data(archive, tmp_path, called, monkeypatch):
    """The clinic's labels, carried over by the map: equal pixels, labels and patients."""
    monkeypatch.setenv("MEDIMG_EDGE_STATE", str(tmp_path / "state"))
    copies, secret = tmp_path / "copies", tmp_path / "map.csv"
    assert called("deidentify", archive, copies, "--map", secret).returncode == 0
    with secret.open(newline="") as file:
        rows = [f"{row['path']},{row['source'].split('/')[0]}" for row in csv.DictReader(file)]
    sheet = write(copies, "labels.csv", "\n".join(["path,label", *rows]).encode())

    def patients(data: Path) -> set[frozenset[tuple[bytes, int]]]:
        cached = prepare(data, RECIPE).cached
        found = defaultdict(set)
        for pixels, sample in zip(cached.pixels, cached.samples, strict=True):
            assert isinstance(sample.label, int)
            found[sample.group].add((pixels.tobytes(), sample.label))
        return set(map(frozenset, found.values()))

    assert len(patients(archive)) == PATIENTS
    assert patients(sheet) == patients(archive)


def test_the_cache_holds_the_devices_pixels(archive):
    """MONOCHROME1, 12 bits and the window: what training sees is what a device makes of a file."""
    prepared = prepare(archive, RECIPE)
    for pixels, sample in zip(prepared.cached.pixels, prepared.cached.samples, strict=True):
        assert isinstance(sample.source, Path)
        assert np.array_equal(pixels, preprocess(read_image(sample.source), prepared.preprocessing))
