"""Open, read, describe: what lies in the folder is what the manifest lists."""

import hashlib

import pytest

from medimg_edge.bundle import MANIFEST, Bundle, describe_files, is_safe
from medimg_edge.errors import ArtifactUnknown, BundleMissing, FilesDiffer


def test_open(frozen):
    opened = Bundle.open(str(frozen))
    assert opened.path == frozen
    assert opened.hash == hashlib.sha256((frozen / MANIFEST).read_bytes()).hexdigest()
    assert set(opened.entries) == set(describe_files(frozen)) - {MANIFEST}
    assert {"model.onnx", "MODEL_CARD.md", "golden/01-gray8.png"} <= set(opened.entries)
    for name, entry in opened.entries.items():
        data = opened.read(name)
        assert data == (frozen / name).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (entry.bytes, entry.sha256)
    opened.check_contents()


def test_artifact(frozen):
    opened = Bundle.open(frozen)
    assert opened.artifact() == opened.manifest.default_artifact == "model.int8.onnx"
    assert opened.artifact("model.tflite") == "model.tflite"
    with pytest.raises(ArtifactUnknown, match=r"it has .*model\.int8\.tflite"):
        opened.artifact("MODEL_CARD.md")


def test_read_trusts_nothing(bundle):
    opened = Bundle.open(bundle)
    path = bundle / "model.onnx"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(FilesDiffer, match=r"model\.onnx is not the file"):
        opened.read("model.onnx")
    with pytest.raises(FilesDiffer, match=r"model\.onnx"):
        opened.check_contents()
    path.unlink()
    with pytest.raises(FilesDiffer, match="No such file"):
        opened.read("model.onnx")
    for name in (MANIFEST, "../bundle/model.onnx", "none"):
        with pytest.raises(FilesDiffer, match="lists no file"):
            opened.read(name)


def test_the_signatures_are_not_listed(bundle):
    (bundle / "signatures" / "by").mkdir(parents=True)
    (bundle / "signatures" / "by" / "someone.sig").write_bytes(b"...")
    Bundle.open(bundle).check_contents()


@pytest.mark.parametrize("path", ["none", "file", "empty", "long" * 100, "nested/none"])
def test_no_bundle(tmp_path, path):
    (tmp_path / "file").write_text("text")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BundleMissing, match=r"folder that `medimg-edge export` wrote"):
        Bundle.open(tmp_path / path)


@pytest.mark.parametrize(
    "name", ["model.onnx", "golden/01-gray8.png", "a/b/c", "a b", "..a", "a..", "ä", "signatures2"]
)
def test_safe_paths(name):
    assert is_safe(name)


@pytest.mark.parametrize(
    "name",
    [
        *("", ".", "..", "/", "/etc/passwd", "../x", "a/../x", "a/..", "./a", "a/./b", "a//b"),
        *("a/", "a\\b", "..\\x", "C:x", "C:/x", "a\0b", "a?", "a*", 'a"', "a|b", "a<b", "a>b"),
        *(MANIFEST, "signatures", "signatures/x"),
    ],
)
def test_unsafe_paths(name):
    assert not is_safe(name)
