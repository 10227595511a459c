"""The machine, as Linux tells it on several kinds."""

import subprocess
import sys

import pytest

from medimg_edge import machine

XEON = "processor\t: 0\nmodel name\t: Some Xeon\nflags\t\t: fpu avx avx2 avx512f avx512_vnni\n"
PI = (
    "processor\t: 0\nFeatures\t: fp asimd crc32 asimddp\nCPU implementer\t: 0x41\n"
    "CPU architecture: 8\nCPU part\t: 0xd0b\n"
)


@pytest.fixture
def proc(tmp_path, monkeypatch):
    for name in ("PROC", "CGROUP"):
        (tmp_path / name).mkdir()
        monkeypatch.setattr(machine, name, tmp_path / name)
    return tmp_path / "PROC"


def test_this_one():
    here = machine.this_machine()
    assert here == machine.this_machine()
    assert here.cpu
    assert here.cores >= 1
    assert machine.memory().total != 0


@pytest.mark.parametrize(
    ("cpuinfo", "cpu", "features"),
    [
        (XEON, "Some Xeon", ("AVX", "AVX2", "AVX-512", "AVX-512 VNNI")),
        (XEON + "\nmodel name\t: the second\nflags: sse\n", "Some Xeon", None),
        (PI, "implementer 0x41, part 0xd0b", ("NEON", "NEON dot product")),
    ],
)
def test_processors(proc, cpuinfo, cpu, features):
    (proc / "cpuinfo").write_text(cpuinfo)
    found = machine.this_machine()
    assert found.cpu == cpu
    assert features in (None, found.features)


def test_the_board_is_told(proc):
    (proc / "cpuinfo").write_text(PI)
    (proc / "device-tree").mkdir()
    (proc / "device-tree" / "model").write_bytes(b"Raspberry Pi 5 Model B Rev 1.0\0")
    cpu = machine.this_machine().cpu
    assert cpu == "Raspberry Pi 5 Model B Rev 1.0, implementer 0x41, part 0xd0b"


def test_a_system_without_proc(proc):
    assert machine.this_machine().cpu
    assert machine.memory() == machine.Memory(None, None, None)


def test_memory(proc):
    (proc / "meminfo").write_text("MemTotal:  1000 kB\nMemFree: 1 kB\nMemAvailable:   600 kB\n")
    assert machine.memory() == machine.Memory(1024_000, 614_400, None)


@pytest.mark.parametrize(
    ("cgroup", "files", "limit"),
    [
        ("0::/a/b\n", {"a/memory.max": "1000\n", "a/b/memory.max": "max\n"}, 1000),
        ("0::/a/b\n", {"a/memory.max": "3000\n", "a/b/memory.max": "2000\n"}, 2000),
        ("0::/outside\n", {"memory.max": "4000\n"}, 4000),  # as a container sees it
        (
            "4:memory:/m\n3:cpu,cpuacct:/\n0::/\n",
            {
                "memory/memory.limit_in_bytes": f"{2**63 - 4096}\n",
                "memory/m/memory.limit_in_bytes": "5000\n",
            },
            5000,
        ),
        ("0::/\n", {}, None),
    ],
)
def test_the_limit_of_a_cgroup(proc, cgroup, files, limit):
    (proc / "self").mkdir()
    (proc / "self" / "cgroup").write_text(cgroup)
    for name, text in files.items():
        path = machine.CGROUP / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert machine.memory().limit == limit


@pytest.mark.skipif(machine.peak_memory() is None, reason="this system has no VmHWM")
def test_peak_memory_is_that_of_this_process_alone():
    """A process that a large one starts is not as large."""
    program = (
        "import subprocess, sys\n"
        "held = bytearray(200 << 20)\n"
        "code = 'from medimg_edge.machine import peak_memory; print(peak_memory())'\n"
        "subprocess.run([sys.executable, '-c', code], check=True)\n"
        "from medimg_edge.machine import peak_memory; print(peak_memory())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    child, parent = map(int, done.stdout.split())
    assert child < 100 << 20 < 200 << 20 <= parent
