"""Bundles that must not answer: each gives one line with its code, from every command."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from medimg_edge import Classifier
from medimg_edge.bundle import MAX_MANIFEST_BYTES
from medimg_edge.errors import ModelRefused, NotFinite
from medimg_edge.golden_apart import verify_apart
from medimg_edge.machine import peak_memory
from tests.device import hostile_models as hostile
from tests.device.golden_bundle import with_golden_set

COMMANDS = ("info", "infer", "verify")
"""``info`` loads nothing, ``infer`` one artifact; ``verify`` reads every file."""


def manifest(change: Callable[[dict], object]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        raw = json.loads((folder / "manifest.json").read_bytes())
        change(raw)
        (folder / "manifest.json").write_text(json.dumps(raw))

    return apply


def text(old: str, new: str) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        path = folder / "manifest.json"
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new, 1))

    return apply


def flip_a_bit(name: str) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        data = bytearray((folder / name).read_bytes())
        data[len(data) // 2] ^= 4
        (folder / name).write_bytes(data)

    return apply


def cut(folder: Path) -> None:
    os.truncate(folder / "model.tflite", 1000)


def link_a_file(folder: Path) -> None:
    (folder / "model.onnx").rename(folder.parent / "elsewhere.onnx")
    (folder / "model.onnx").symlink_to(folder.parent / "elsewhere.onnx")


def link_a_folder(folder: Path) -> None:
    (folder / "golden").rename(folder.parent / "elsewhere")
    (folder / "golden").symlink_to(folder.parent / "elsewhere")


def link_the_manifest(folder: Path) -> None:
    (folder / "manifest.json").rename(folder.parent / "elsewhere.json")
    (folder / "manifest.json").symlink_to(folder.parent / "elsewhere.json")


def large(folder: Path) -> None:
    data = (folder / "manifest.json").read_bytes()
    (folder / "manifest.json").write_bytes(data + b" " * MAX_MANIFEST_BYTES)


def listed_at(name: str, file: str = "") -> Callable[[Path], None]:
    """A manifest that lists a path, and the file that a careless reader would find there."""

    def change(raw: dict) -> None:
        raw["files"][name] = raw["files"]["MODEL_CARD.md"]

    def apply(folder: Path) -> None:
        manifest(change)(folder)
        if file:
            shutil.copy(folder / "MODEL_CARD.md", folder / file)

    return apply


BROKEN: dict[str, tuple[Callable[[Path], object], str, tuple[str, ...]]] = {
    "the default artifact changed": (flip_a_bit("model.int8.onnx"), "files", COMMANDS[1:]),
    "another artifact changed": (flip_a_bit("model.tflite"), "files", ("verify",)),
    "the model card changed": (flip_a_bit("MODEL_CARD.md"), "files", ("verify",)),
    "a golden input changed": (flip_a_bit("golden/01-gray8.png"), "files", ("verify",)),
    "another size": (cut, "files", COMMANDS),
    "missing": (lambda folder: (folder / "model.tflite").unlink(), "files", COMMANDS),
    "a folder missing": (lambda folder: shutil.rmtree(folder / "golden"), "files", COMMANDS),
    "added": (lambda folder: (folder / "x").touch(), "files", COMMANDS),
    "added below": (lambda folder: (folder / "golden" / "x").touch(), "files", COMMANDS),
    "added and hidden": (lambda folder: (folder / ".x").touch(), "files", COMMANDS),
    "renamed": (
        lambda folder: (folder / "model.onnx").rename(folder / "Model.onnx"),
        "files",
        COMMANDS,
    ),
    "a file is a link": (link_a_file, "files", COMMANDS),
    "a folder is a link": (link_a_folder, "files", COMMANDS),
    "the manifest is a link": (link_the_manifest, "files", COMMANDS),
    "a link added": (lambda folder: (folder / "x").symlink_to("MODEL_CARD.md"), "files", COMMANDS),
    "a pipe added": (lambda folder: os.mkfifo(folder / "x"), "files", COMMANDS),
    "a file is a folder": (
        lambda folder: [(folder / "MODEL_CARD.md").unlink(), (folder / "MODEL_CARD.md").mkdir()],
        "files",
        COMMANDS,
    ),
    "an absolute path": (listed_at("/etc/hostname"), "files", COMMANDS),
    "a path out": (listed_at("../card.md", "../card.md"), "files", COMMANDS),
    "a path out and in": (listed_at("golden/../MODEL_CARD.md"), "files", COMMANDS),
    "a backslash": (listed_at("golden\\card.md", "golden\\card.md"), "files", COMMANDS),
    "a drive": (listed_at("C:card.md", "C:card.md"), "files", COMMANDS),
    "a NUL": (listed_at("card\0.md"), "files", COMMANDS),
    "the manifest lists itself": (listed_at("manifest.json"), "files", COMMANDS),
    "a large manifest": (large, "files", COMMANDS),
    "an unknown schema": (text('"schema": 1', '"schema": 2'), "schema", COMMANDS),
    "an unknown revision": (text('"revision": 1', '"revision": 2'), "revision", COMMANDS),
    "too many labels": (text('"normal",', '"normal", "other",'), "manifest", COMMANDS),
    "labels that do not fit": (text('"binary"', '"multilabel"'), "manifest", COMMANDS),
    "an unknown field": (text('"task"', '"tasks"'), "manifest", COMMANDS),
    "two equal keys": (text('"task"', '"task": "binary", "task"'), "manifest", COMMANDS),
    "NaN": (text('"low": 0.0', '"low": NaN'), "manifest", COMMANDS),
    "a number too large": (text('"low": 0.0', '"low": 1e400'), "manifest", COMMANDS),
    "not JSON": (lambda folder: (folder / "manifest.json").write_text("{"), "manifest", COMMANDS),
    "deep JSON": (
        lambda folder: (folder / "manifest.json").write_text("[" * 200_000),
        "manifest",
        COMMANDS,
    ),
    "not text": (
        lambda folder: (folder / "manifest.json").write_bytes(b"\xff\0"),
        "manifest",
        COMMANDS,
    ),
    "an empty manifest": (
        lambda folder: (folder / "manifest.json").write_bytes(b""),
        "manifest",
        COMMANDS,
    ),
    "no manifest": (lambda folder: (folder / "manifest.json").unlink(), "missing", COMMANDS),
    "no folder": (lambda folder: shutil.rmtree(folder), "missing", COMMANDS),
}


def arguments(command: str, folder: Path, frozen: Path) -> list[object]:
    if command == "infer":
        return ["infer", frozen / "golden" / "01-gray8.png", "--bundle", folder]
    return [command, folder]


def assert_refused(done, code: str) -> None:
    assert done.returncode == 1
    (line,) = [each for each in done.stderr.splitlines() if not each.startswith("INFO:")]
    assert line.startswith(f"error [bundle-{code}]: ")
    assert '"probability"' not in done.stdout


@pytest.mark.parametrize("name", BROKEN)
def test_refused(bundle, frozen, called, name):
    break_it, code, commands = BROKEN[name]
    break_it(bundle)
    for command in COMMANDS:
        done = called(*arguments(command, bundle, frozen))
        if command in commands:
            assert_refused(done, code)
        else:
            assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("command_name", "name"),
    [
        ("verify", "the model card changed"),
        ("infer", "a file is a link"),
        ("info", "two equal keys"),
    ],
)
def test_refused_as_a_process(bundle, frozen, command, command_name, name):
    break_it, code, _ = BROKEN[name]
    break_it(bundle)
    assert_refused(command(*arguments(command_name, bundle, frozen)), code)


def test_a_deep_folder(bundle, called):
    """Deeper than Python's stack; made by relative steps, since its path is too long for a call."""
    here = os.open(bundle, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("folder", dir_fd=here)
        below = os.open("folder", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    try:
        assert_refused(called("info", bundle), "files")
    finally:
        subprocess.run(["rm", "-r", bundle / "folder"], check=True)


@pytest.mark.parametrize("listed", [True, False])
def test_a_model_with_external_data(bundle, rewrite, called, frozen, monkeypatch, listed):
    """ONNX Runtime would read it from wherever the process stands, unhashed."""
    onnx = pytest.importorskip("onnx")
    onnx.save(
        onnx.load(frozen / "model.onnx"),
        bundle / "model.onnx",
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
    )
    if not listed:
        (bundle / "weights.bin").rename(bundle.parent / "weights.bin")
    rewrite(bundle)
    monkeypatch.chdir(bundle if listed else bundle.parent)
    done = called("infer", "-b", bundle, "--artifact", "model.onnx", frozen / "golden/01-gray8.png")
    assert done.returncode == 1
    assert done.stderr.startswith("error [model-refused]: ")
    assert "weights in other files" in done.stderr
    assert called("verify", bundle).returncode == 1


def test_two_names_that_differ_in_case_are_two_files(bundle, rewrite, called):
    shutil.copy(bundle / "MODEL_CARD.md", bundle / "model_card.md")
    if len(os.listdir(bundle)) == 7:
        pytest.skip("this file system keeps no case")
    rewrite(bundle)
    assert called("info", bundle).returncode == 0
    (bundle / "model_card.md").unlink()
    assert_refused(called("info", bundle), "files")


def test_a_copy_that_was_written_anew_is_whole(bundle, rewrite, called):
    """What the other tests change is all that is wrong with their bundles."""
    rewrite(bundle)
    assert called("verify", bundle).returncode == 0


# Models that must not be run: signed or not, a model is code


def answerable(mean_bundle, rewrite, change: hostile.Change) -> Path:
    """A bundle with a golden set, whose manifest is right in every way, and a hostile model."""
    folder = with_golden_set(mean_bundle([1, 2], [0.5, -0.5]))
    (folder / "model.onnx").write_bytes(hostile.changed(change))
    rewrite(folder)
    return folder


@pytest.mark.parametrize("name", hostile.REFUSED_ONNX)
def test_a_hostile_onnx_is_refused(mean_bundle, rewrite, name):
    """In this process and in one of its own, within seconds, and nothing is allocated for it."""
    change, says = hostile.REFUSED_ONNX[name]
    folder = answerable(mean_bundle, rewrite, change)
    before, started = peak_memory(), time.monotonic()
    with pytest.raises(ModelRefused, match=says):
        Classifier(folder)
    (check,) = verify_apart(folder)
    assert (check.status, bool(re.search(says, check.message))) == ("failed", True)
    assert time.monotonic() - started < 10
    if before is not None:
        assert (peak_memory() or 0) - before < 2**29


@pytest.mark.parametrize("name", hostile.REFUSED_TFLITE)
def test_a_hostile_tflite_is_refused(bundle, rewrite, name):
    pytest.importorskip("flatbuffers")
    change, says = hostile.REFUSED_TFLITE[name]
    path = bundle / "model.tflite"
    path.write_bytes(hostile.changed_tflite(path.read_bytes(), change))
    rewrite(bundle)
    started = time.monotonic()
    with pytest.raises(ModelRefused, match=says):
        Classifier(bundle, artifact="model.tflite")
    found = {each.artifact: each for each in verify_apart(bundle)}
    assert found["model.onnx"].status == "ok"
    assert (found["model.tflite"].status, bool(re.search(says, found["model.tflite"].message))) == (
        "failed",
        True,
    )
    assert time.monotonic() - started < 10


def test_a_model_of_nan_gives_no_answer(mean_bundle, rewrite, frozen):
    folder = answerable(mean_bundle, rewrite, hostile.nan)
    with pytest.raises(NotFinite):
        Classifier(folder).predict(frozen / "golden" / "01-gray8.png")
    (check,) = verify_apart(folder)
    assert (check.status, "not finite" in check.message) == ("failed", True)


@pytest.mark.parametrize("change", [hostile.loop, hostile.broadcast, hostile.nan, hostile.short])
def test_hostile_models_as_a_process(mean_bundle, rewrite, command, frozen, change):
    """From the command line: one line with its code, within ten seconds."""
    folder = answerable(mean_bundle, rewrite, change)
    image = frozen / "golden" / "01-gray8.png"
    for arguments in (["verify", folder], ["infer", image, "--bundle", folder]):
        started = time.monotonic()
        done = command(*arguments)
        assert time.monotonic() - started < 10
        assert done.returncode == 1
        errors = done.stderr + done.stdout
        assert re.search("bundle-golden|model-refused|model-not-finite", errors), errors
        assert not re.search(r'"probability": ?[0-9N]', done.stdout)


REAL = ("broadcast", "channels", "doubled and doubled", "hoarded", "a resized image")


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")
@pytest.mark.parametrize("name", REAL)
def test_what_is_refused_for_its_memory_would_take_it(tmp_path, name):
    """ONNX Runtime alone, in a process that may have 3 GB: it runs out of them."""
    file = tmp_path / "model.onnx"
    file.write_bytes(hostile.changed(hostile.REFUSED_ONNX[name][0]))
    program = (
        "import resource, sys\n"
        "import numpy, onnxruntime\n"
        "resource.setrlimit(resource.RLIMIT_AS, (3 * 2**30, 3 * 2**30))\n"
        "options = onnxruntime.SessionOptions()\n"
        "options.intra_op_num_threads = 1\n"
        "options.log_severity_level = 4\n"
        "try:\n"
        "    session = onnxruntime.InferenceSession(\n"
        "        sys.argv[1], options, providers=['CPUExecutionProvider'])\n"
        "    session.run(None, {'pixels': numpy.zeros((1, 16, 16, 1), 'u1')})\n"
        "    print('answered')\n"
        "except Exception as error: print('stopped', error)\n"
    )
    run = subprocess.run([sys.executable, "-c", program, file], capture_output=True, text=True)
    assert "answered" not in run.stdout
    assert re.search("alloc|memory", run.stdout + run.stderr, re.IGNORECASE)
