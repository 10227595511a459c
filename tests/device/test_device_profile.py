"""A device profile is used where it was made, and nowhere else."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import msgspec
import numpy as np
import pytest

from medimg_edge import __version__, engines, golden, machine
from medimg_edge.bundle import Bundle
from medimg_edge.classifier import Classifier
from medimg_edge.cores import usable_cores
from medimg_edge.device_profile import (
    Choice,
    DeviceProfile,
    Pace,
    Setting,
    choose,
    choose_here,
    encode,
    find,
    write,
)
from medimg_edge.errors import WriteError
from medimg_edge.manifest import OperatingPoint
from medimg_edge.site_profile import Calibration, SiteData, SiteProfile, beside
from medimg_edge.site_profile import encode as encode_site

DEFAULT = Setting("model.int8.onnx", "onnxruntime", 1)
TUNED = Setting("model.onnx", "onnxruntime", 1)


def profile_for(folder: Path, artifact: str = "model.onnx", **changes) -> DeviceProfile:
    version = engines.version("onnxruntime")
    assert version is not None
    values = {
        "bundle": Bundle.open(folder).hash,
        "machine": machine.this_machine(),
        "artifact": artifact,
        "runtime": "onnxruntime",
        "runtime_version": version,
        "release": __version__,
        "single": Pace(1, 2.0, 800.0),
        "many": Pace(1, 2.0, 800.0),
        "created": "2026-01-31",
    }
    return DeviceProfile(**values | changes)


def site_for(bundle: Path, artifact: str) -> SiteProfile:
    opened = Bundle.open(bundle)
    fit = Calibration(1.0, 0.0, OperatingPoint(0.5, "youden"))
    data = SiteData(images=200, patients=None, positives={"opacity": 80}, sha256="0" * 64)
    findings = dict.fromkeys(opened.manifest.findings, fit)
    return SiteProfile(opened.hash, artifact, findings, data, "2026-01-31")


@pytest.fixture
def image(frozen) -> Path:
    return frozen / "golden" / "01-gray8.png"


@pytest.fixture
def answered(bundle, image, called):
    """What ``infer`` says: its record and stderr."""

    def run(*options: object) -> tuple[dict, str]:
        done = called("infer", image, "-b", bundle, *options)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout), done.stderr

    return run


def test_infer_answers_with_the_choice_and_info_shows_it(bundle, answered, called):
    assert answered()[0]["artifact"] == "model.int8.onnx"
    said = called("info", bundle).stdout
    assert (
        "answers here      model.int8.onnx by onnxruntime, 1 thread (chosen by the bundle)" in said
    )
    write(profile_for(bundle))
    for options in ((), ("--artifact", "auto")):
        record, err = answered(*options)
        assert (record["artifact"], err) == ("model.onnx", "")
        assert record["runtime"] == f"onnxruntime {engines.version('onnxruntime')}"
    assert answered("--artifact", "model.int8.onnx")[0]["artifact"] == "model.int8.onnx"
    said = called("info", bundle).stdout
    assert "model.onnx by onnxruntime, 1 thread (chosen by the device profile)" in said


def test_another_runtime_is_run_and_named(bundle, answered, monkeypatch):
    """It is not the reference of its format."""
    known = engines.RUNTIMES["onnxruntime"]

    def load(model, manifest, threads):
        engine = known.engine(model, manifest, threads)
        engine.runtime = "fake 7"
        return engine

    fake = engines.Runtime("onnx", "onnxruntime", lambda: "7", load)
    monkeypatch.setitem(engines.RUNTIMES, "fake", fake)
    write(profile_for(bundle, runtime="fake", runtime_version="7"))
    assert answered()[0]["runtime"] == "fake 7"
    assert answered("--artifact", "model.onnx")[0]["runtime"].startswith("onnxruntime ")


@pytest.mark.parametrize(("shift", "status"), [(0.0, 0), (0.06, 1)])
def test_verify_asks_what_answers_here(bundle, called, monkeypatch, shift, status):
    """A runtime that is no artifact's reference, and may have been broken since."""
    known = engines.RUNTIMES["onnxruntime"]

    class Shifted:
        runtime = "fake 7"

        def __init__(self, *arguments) -> None:
            self._engine = known.engine(*arguments)

        def run(self, pixels):
            outputs = self._engine.run(pixels)
            p = outputs["probability"]
            return {**outputs, "probability": p - np.float32(shift) * np.sign(p - 0.5)}

    fake = engines.Runtime("onnx", "onnxruntime", lambda: "7", Shifted)
    monkeypatch.setitem(engines.RUNTIMES, "fake", fake)
    monkeypatch.setattr("medimg_edge.golden_apart.verify_apart", golden.verify)  # in this process
    assert "fake" not in called("verify", bundle).stdout
    write(profile_for(bundle, runtime="fake", runtime_version="7"))
    done = called("verify", bundle)
    assert done.returncode == status
    (line,) = [each for each in done.stdout.splitlines() if "fake" in each]
    assert line.split()[:4] == ["model.onnx", "by", "fake", ("ok", "failed")[status]]


def test_written_and_read_back(bundle, state):
    profile = profile_for(bundle)
    path = write(profile)
    assert path.parent == state
    assert find(Bundle.open(bundle), pytest.fail) == profile
    assert path.read_bytes() == encode(profile)
    other = profile_for(bundle, artifact="model.int8.onnx")
    assert write(other) == path
    assert find(Bundle.open(bundle), pytest.fail) == other
    assert os.listdir(state) == [path.name]


@pytest.mark.parametrize(
    "damage",
    [b"", b"{", b"[]", b'{"schema": 1}', b"\xff\xfe", b"[" * 10**4, b" " * 2**17],
    ids=["empty", "cut", "list", "fields", "bytes", "deep", "large"],
)
def test_a_damaged_profile_is_ignored_with_a_warning(bundle, answered, called, damage):
    path = write(profile_for(bundle))
    path.write_bytes(damage)
    record, err = answered()
    assert record["artifact"] == "model.int8.onnx"
    assert err.startswith(f"warning: the device profile {path} is ")
    assert "It is ignored" in err
    assert "run `medimg-edge tune`" in err
    done = called("info", bundle)
    assert "chosen by the bundle" in done.stdout
    assert "is ignored" in done.stderr
    assert called("tune", bundle, "--rounds", 1).returncode == 0  # which writes it anew
    assert answered()[1] == ""


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("extra",), 1),
        (("schema",), 2),
        (("bundle",), "abc"),
        (("single", "threads"), 0),
        (("single", "threads"), "1"),
        (("single", "milliseconds"), 0),
        (("many", "images_per_second"), -1),
        (("machine", "cores"), None),
    ],
)
def test_a_profile_is_strict(bundle, answered, path, value):
    raw = msgspec.to_builtins(profile_for(bundle))
    where = raw
    for key in path[:-1]:
        where = where[key]
    where[path[-1]] = value
    write(profile_for(bundle)).write_text(json.dumps(raw))
    record, err = answered()
    assert record["artifact"] == "model.int8.onnx"
    assert "is damaged" in err


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"bundle": "0" * 64}, "was made for another bundle"),
        ({"runtime_version": "0.1"}, "was made with onnxruntime 0.1; "),
        ({"release": "0.0.1"}, "was made by medimg-edge 0.0.1; this is "),
        ({"artifact": "gone.onnx"}, "names gone.onnx by onnxruntime, which cannot be run here"),
        ({"artifact": "model.tflite"}, "names model.tflite by onnxruntime, which cannot"),
        ({"runtime": "gone"}, "names model.onnx by gone, which cannot be run here"),
        ({"single": Pace(4096, 1.0, 1.0)}, "asks for more threads"),
        ({"many": Pace(4096, 1.0, 1.0)}, "asks for more threads"),
    ],
)
def test_one_that_says_nothing_about_here_is_ignored(bundle, answered, state, changes, says):
    profile = profile_for(bundle, **changes)
    state.mkdir()
    path = state / f"{Bundle.open(bundle).hash}.device.json"
    path.write_bytes(encode(profile))
    record, err = answered()
    assert record["artifact"] == "model.int8.onnx"
    assert f"warning: the device profile {path} {says}" in err


def test_a_runtime_that_is_broken_since(bundle, answered, monkeypatch):
    def broken():
        raise ImportError("libtbb.so.12: cannot open shared object file")

    known = engines.Runtime("onnx", "onnxruntime", broken, engines.RUNTIMES["onnxruntime"].engine)
    monkeypatch.setitem(engines.RUNTIMES, "fake", known)
    write(profile_for(bundle, runtime="fake", runtime_version="7"))
    record, err = answered()
    assert record["artifact"] == "model.int8.onnx"
    assert "names model.onnx by fake, which cannot be run here" in err


@pytest.mark.parametrize(
    "changes",
    [{"cpu": "another"}, {"cores": 1024}, {"architecture": "riscv64"}, {"features": ()}],
)
def test_one_of_another_machine_is_ignored(bundle, answered, changes):
    other = msgspec.structs.replace(machine.this_machine(), **changes)
    write(profile_for(bundle, machine=other))
    record, err = answered()
    assert record["artifact"] == "model.int8.onnx"
    assert "was made on another machine" in err


def test_fewer_cores_than_it_was_made_for(bundle, image, command):
    """As a process meets it that is bound to one core."""
    if usable_cores() < 2:
        pytest.skip("this machine has one core")
    write(profile_for(bundle))
    pinned = {"preexec_fn": lambda: os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])}
    done = command("infer", image, "-b", bundle, **pinned)
    assert json.loads(done.stdout)["artifact"] == "model.int8.onnx"
    assert "was made on another machine" in done.stderr


def test_another_bundle_has_another_profile(bundle, answered, rewrite):
    write(profile_for(bundle))
    rewrite(bundle, lambda raw: raw.update(version="9"))
    record, err = answered()
    assert (record["artifact"], err) == ("model.int8.onnx", "")


@pytest.mark.parametrize("kind", ["folder", "pipe", "dangling"])
def test_what_is_no_file(bundle, answered, state, kind):
    state.mkdir()
    path = state / f"{Bundle.open(bundle).hash}.device.json"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("nothing")
    record, err = answered()
    assert record["artifact"] == "model.int8.onnx"
    assert "is no regular file. It is ignored" in err


# A site profile stays with its artifact


def test_auto_stays_with_the_artifact_of_the_site(bundle, answered, called):
    site = site_for(bundle, "model.int8.onnx")
    write(profile_for(bundle))
    beside(Bundle.open(bundle)).write_bytes(encode_site(site))
    record, err = answered()
    assert (record["artifact"], record["profile"], err) == ("model.int8.onnx", site.hash, "")
    assert (
        "model.int8.onnx by onnxruntime, 1 thread (chosen by the site"
        in called("info", bundle).stdout
    )
    assert answered("--profile", "none")[0]["artifact"] == "model.onnx"


def test_also_where_it_is_not_the_default(bundle, answered):
    """And where nothing was tuned."""
    beside(Bundle.open(bundle)).write_bytes(encode_site(site_for(bundle, "model.onnx")))
    assert answered()[0]["artifact"] == "model.onnx"
    write(profile_for(bundle, artifact="model.int8.onnx"))
    assert answered()[0]["artifact"] == "model.onnx"


def test_a_site_keeps_the_runtime_that_it_was_fitted_with(bundle):
    """Of its own artifact the device profile gives the threads, and no other runtime."""
    opened = Bundle.open(bundle)
    site = site_for(bundle, "model.onnx")
    other = profile_for(bundle, runtime="openvino", single=Pace(2, 1.0, 1000.0))
    same = profile_for(bundle, single=Pace(2, 1.0, 1000.0))
    expected = Choice(Setting("model.onnx", "onnxruntime", 1), "site profile")
    assert choose(opened, "auto", site, None) == expected
    assert choose(opened, "auto", site, other) == expected
    assert choose(opened, "auto", site, same).setting == Setting("model.onnx", "onnxruntime", 2)
    assert choose(opened, "auto", None, other).setting == Setting("model.onnx", "openvino", 2)
    assert choose(opened, "auto", None, None) == Choice(DEFAULT, "bundle")
    assert choose(opened, "auto", site, same, many=True).setting == TUNED
    assert choose(opened, "auto", None, other, many=True).setting == Setting(
        "model.onnx", "openvino", 1
    )
    assert choose(opened, "model.onnx", None, None) == Choice(TUNED, "user")


def test_info_says_that_a_site_profile_is_refused(bundle, called):
    site = msgspec.structs.replace(site_for(bundle, "model.onnx"), bundle="0" * 64)
    beside(Bundle.open(bundle)).write_bytes(encode_site(site))
    done = called("info", bundle)
    assert done.returncode == 0
    assert (
        "answers here      nothing: The site profile was fitted on the bundle 0000" in done.stdout
    )


def test_tune_says_that_a_site_profile_is_in_force(bundle, called):
    path = beside(Bundle.open(bundle))
    path.write_bytes(encode_site(site_for(bundle, "model.onnx")))
    done = called("tune", bundle, "--rounds", 1)
    assert done.returncode == 0
    assert f"warning: {path} is in force: `infer` stays with the artifact" in done.stderr


def test_calibrate_fits_the_artifact_that_answers_here(bundle, called, tmp_path):
    """Else the site would be slow again, or its profile refused."""
    lines = ["path,label"]
    for case in Bundle.open(bundle).manifest.golden:
        positive = case.probability["model.onnx"][0] > 0.5
        lines.append(f"{bundle / case.input},{('normal', 'opacity')[positive]}")
    sheet = tmp_path / "labels.csv"
    sheet.write_text("\n".join(lines) + "\n")
    write(profile_for(bundle))
    done = called("calibrate", bundle, sheet)
    assert done.returncode == 0, done.stderr
    path = beside(Bundle.open(bundle))
    assert json.loads(path.read_bytes())["artifact"] == "model.onnx"


# The state folder


def test_a_user_without_a_home(bundle, answered, monkeypatch):
    monkeypatch.delenv("MEDIMG_EDGE_STATE")
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)

    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    record, err = answered()
    assert (record["artifact"], err) == ("model.int8.onnx", "")
    with pytest.raises(WriteError, match="MEDIMG_EDGE_STATE=FOLDER"):
        write(profile_for(bundle))


def test_a_folder_that_cannot_be_made(bundle, answered, called, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MEDIMG_EDGE_STATE", str(tmp_path / "file" / "state"))
    done = called("tune", bundle, "--rounds", 1)
    assert (done.returncode, done.stdout) == (1, "")
    assert "error [write]: " in done.stderr
    assert "MEDIMG_EDGE_STATE=FOLDER" in done.stderr
    assert answered()[1] == ""


def test_a_copy_of_a_classifier_runs_as_it_did(bundle, image):
    device = profile_for(bundle, single=Pace(2, 1.0, 1000.0))
    classifier = Classifier(bundle, device=device)
    again = pickle.loads(pickle.dumps(classifier))
    for each in (classifier, again):
        assert (each.artifact, each.threads) == ("model.onnx", 2)
    assert again.runtime == classifier.runtime
    assert again.predict(image).probability == classifier.predict(image).probability
    assert Classifier(bundle, device=device, threads=1).threads == 1
    assert Classifier(bundle).artifact == "model.int8.onnx"


def test_infer_takes_the_threads_for_one_image_or_for_many(
    bundle, image, called, tmp_path, monkeypatch
):
    """A folder that holds one image is one of many: what is in it is not known beforehand."""
    loaded = []
    load = engines.load

    def watched(*arguments, threads, **options):
        loaded.append(threads)
        return load(*arguments, threads=threads, **options)

    monkeypatch.setattr(engines, "load", watched)
    cores = msgspec.structs.replace(machine.this_machine(), cores=4)
    monkeypatch.setattr("medimg_edge.device_profile.this_machine", lambda: cores)
    write(profile_for(bundle, machine=cores, single=Pace(4, 1.0, 1000.0)))
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / image.name).write_bytes(image.read_bytes())
    sheet = tmp_path / "list.txt"
    sheet.write_text(f"{image}\n")
    for inputs, threads in [
        ((image,), 4),
        ((image, image), 1),
        ((folder,), 1),
        (("--from-list", sheet), 1),
        ((image, "--threads", 2), 1),
        ((image, "--artifact", "model.onnx"), 1),
    ]:
        assert called("infer", *inputs, "-b", bundle).returncode == 0
        assert loaded.pop() == threads
    assert not loaded


def test_choose_here(bundle):
    assert choose_here(Bundle.open(bundle), pytest.fail) == Choice(DEFAULT, "bundle")
    write(profile_for(bundle))
    assert choose_here(Bundle.open(bundle), pytest.fail) == Choice(TUNED, "device profile")
