"""The device without the workstation: what is imported, and what is not."""

import ast
import json
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import medimg_edge

ROOT = Path(__file__).parent.parent.parent
WORKSTATION = ("tensorflow", "keras", "tf2onnx", "sklearn", "matplotlib", "medimg_export", "onnx")
HEAVY = ("numpy", "cv2", "onnxruntime", "pydicom", "msgspec", "ai_edge_litert")
MODULES = sorted(
    each.name
    for each in pkgutil.walk_packages(medimg_edge.__path__, "medimg_edge.")
    if not each.name.endswith("__main__")
)


def run(program: str, *arguments: object) -> str:
    """What a program says in a process that cannot import the workstation's packages."""
    absent = f"import sys; sys.modules.update(dict.fromkeys({WORKSTATION!r}))\n"
    done = subprocess.run(
        [sys.executable, "-c", absent + program, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout


def test_every_module_without_the_workstation():
    assert {"medimg_edge.classifier", "medimg_edge.cli.workstation"} <= set(MODULES)
    program = (
        "from importlib import import_module\n"
        "for name in sys.argv[1:]: import_module(name); print(name)"
    )
    assert run(program, *MODULES).split() == MODULES


def test_the_public_names():
    program = "import medimg_edge as m; print(*(getattr(m, name).__name__ for name in m.__all__))"
    assert run(program).split() == sorted(medimg_edge.__all__)
    with pytest.raises(AttributeError, match="no attribute 'train'"):
        getattr(medimg_edge, "train")  # noqa: B009 - pyright knows that it is not there


@pytest.mark.parametrize("words", [[], ["--help"], ["infer", "--help"], ["--version"]])
def test_the_start_is_light(words):
    """What only an answer needs is imported when there is one to give."""
    program = (
        "import medimg_edge\n"
        "if sys.argv[1:]:\n"
        "    from medimg_edge.cli import main\n"
        "    try: main()\n"
        "    except SystemExit: pass\n"
        f"print('imported:', [name for name in {HEAVY!r} if name in sys.modules])"
    )
    assert run(program, *words).splitlines()[-1] == "imported: []"


def test_an_answer_imports_what_it_needs(frozen):
    """A PNG through ONNX Runtime: no other format's reader, no other command, no rich."""
    needless = (
        *("pydicom", "ai_edge_litert", "rich", "numpy.ma", "asyncio", "importlib.metadata"),
        *("medimg_edge.golden", "medimg_edge.site_fit", "medimg_edge.label_csv"),
    )
    program = (
        "from medimg_edge.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code\n"
        f"print('imported:', [name for name in {needless!r} if name in sys.modules])"
    )
    said = run(program, "infer", frozen / "golden" / "01-gray8.png", "-b", frozen)
    assert said.splitlines()[1:] == ["imported: []"]


def test_the_service_itself_holds_no_image_and_no_network():
    """The process that answers does: what serves is small, and outlives it."""
    program = (
        "import medimg_edge.kiosk.service\n"
        f"print('imported:', [name for name in {HEAVY!r} if name in sys.modules])"
    )
    assert run(program) == "imported: ['msgspec']\n"


def test_opencv_is_told_its_limit_before_it_is_imported():
    program = "import medimg_edge, os; print(os.environ['OPENCV_IO_MAX_IMAGE_PIXELS'])"
    assert run(program).strip() == str(2**26)


def test_a_device_answers(frozen):
    """Infer and verify, and whatever they import on the way, without the workstation."""
    program = (
        "from medimg_edge.cli import main\n"
        "bundle = sys.argv[1]\n"
        "for words in (['infer', bundle + '/golden', '-b'], ['verify'], ['info']):\n"
        "    sys.argv[1:] = [*words, bundle]\n"
        "    try: main()\n"
        "    except SystemExit as end: assert not end.code, words\n"
    )
    said = run(program, frozen)
    lines = said.splitlines()[:12]
    assert {json.loads(line)["status"] for line in lines} == {"ok"}
    assert "gives the same answers here" in said


def test_a_workstations_command_says_the_line_that_helps(tmp_path):
    program = "from medimg_edge.cli import main\nsys.stderr = sys.stdout\nmain()"
    for words in (
        ["train", tmp_path, "--out", tmp_path / "run"],
        ["export", tmp_path, "--out", tmp_path / "bundle"],
        ["evaluate", tmp_path, tmp_path, "--out", tmp_path / "report"],
        ["compare", tmp_path, tmp_path, "--out", tmp_path / "report"],
        ["demo", "--out", tmp_path / "demo"],
        ["data", "check", tmp_path],
    ):
        said = run(program, *words)
        assert said.startswith("error [extra-missing]: This command runs on a workstation"), words
        assert "pip install 'medimg-edge[export]'" in said


def test_import_contracts():
    """The same rules for every import statement, also for those that no test runs."""
    lint = Path(sys.executable).with_name("lint-imports")
    if not lint.exists():
        pytest.skip("import-linter is not installed")
    done = subprocess.run([lint], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_benchmarks_measure_the_bundle_not_a_site():
    """A profile that happens to lie beside a bundle must not change a figure of the README."""
    calls = [
        (path.name, {each.arg for each in node.keywords})
        for path in sorted((ROOT / "benchmarks").glob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Classifier"
    ]
    assert {"shortcuts.py", "heatmap_localisation.py"} <= {name for name, _ in calls}
    assert [name for name, keywords in calls if "profile" not in keywords] == []
