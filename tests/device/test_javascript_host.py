"""The JavaScript host of docs/hosts gives the answers of the frozen bundle's golden set."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.device.node_packages import installed

ROOT = Path(__file__).parents[2]
HOST = ROOT / "docs" / "hosts"
BUNDLE = ROOT / "tests" / "data" / "frozen-bundle"
CASES = 12
ARTIFACTS = ["model.onnx", "model.int8.onnx"]


@pytest.fixture(scope="module")
def host(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """infer.mjs, in a folder with the package that it imports."""
    if not shutil.which("node"):
        pytest.skip("node is not installed")
    cache = getattr(pytestconfig, "cache", None)  # absent under -p no:cacheprovider
    kept = cache.mkdir("javascript-host") if cache else tmp_path_factory.mktemp("npm")
    folder = tmp_path_factory.mktemp("host")
    (folder / "node_modules").symlink_to(installed(HOST / "package.json", kept) / "node_modules")
    return Path(shutil.copy(HOST / "infer.mjs", folder))


def infer(host: Path, bundle: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = ["node", str(host), str(bundle), *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    return Path(shutil.copytree(BUNDLE, tmp_path / "bundle"))


@pytest.mark.parametrize("artifact", ARTIFACTS)
def test_the_host_gives_the_golden_answers(host: Path, artifact: str) -> None:
    run = infer(host, BUNDLE, "--artifact", artifact)
    assert run.returncode == 0, run.stdout + run.stderr
    lines = run.stdout.splitlines()
    assert len(lines) == CASES
    assert all(line.endswith(" ok") for line in lines)


@pytest.mark.parametrize(
    ("artifact", "changes"),
    [
        ("model.onnx", {3: (2e-4, "failed"), 5: (5e-5, "ok")}),
        ("model.int8.onnx", {3: (0.06, "failed"), 5: (0.03, "warning")}),
    ],
)
def test_the_host_fails_where_an_answer_differs(
    host: Path, copied: Path, artifact: str, changes: dict[int, tuple[float, str]]
) -> None:
    path = copied / "manifest.json"
    manifest = json.loads(path.read_bytes())
    for case, (difference, _) in changes.items():
        manifest["golden"][case]["probability"][artifact][0] += difference
    path.write_text(json.dumps(manifest))
    run = infer(host, copied, "--artifact", artifact)
    assert run.returncode == 1, run.stdout + run.stderr
    found = {at: line.rpartition(" ")[2] for at, line in enumerate(run.stdout.splitlines())}
    assert found == dict.fromkeys(range(CASES), "ok") | {at: s for at, (_, s) in changes.items()}


def test_the_host_does_not_load_a_changed_model(host: Path, copied: Path) -> None:
    path = copied / json.loads((copied / "manifest.json").read_bytes())["default_artifact"]
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    run = infer(host, copied)
    assert run.returncode == 1
    assert (run.stdout, run.stderr.count("\n")) == ("", 1)
    assert path.name in run.stderr
