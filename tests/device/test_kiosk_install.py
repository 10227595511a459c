"""`kiosk install`: what it writes is understood, closed, and says nothing that was smuggled in."""

from __future__ import annotations

import configparser
import http.server
import json
import os
import re
import shlex
import shutil
import ssl
import subprocess
import sys
import threading
from base64 import b64decode
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest

from medimg_edge.errors import ServiceRefused
from medimg_edge.kiosk import units
from medimg_edge.kiosk.installation import Installation, Secured
from medimg_edge.kiosk.waiting import wait

ROOT = Path(__file__).parents[2]
PROGRAM = Path("/opt/medimg-edge/bin/medimg-edge")
MOST_EXPOSURE = {units.SERVICE: 20, units.SCREEN: 30}
"""In tenths. The screen's browser needs namespaces and a compiler of its own."""

SYSTEMD_ANALYZE = shutil.which("systemd-analyze")
systemd = pytest.mark.skipif(SYSTEMD_ANALYZE is None, reason="systemd-analyze is not installed")

TLS = Secured(Path("/etc/medimg/token"), Path("/etc/medimg/tls.crt"), Path("/etc/medimg/tls.key"))
LOOPBACK = Installation(PROGRAM, "pneumonia-cxr")
OTHER_FOLDER = Installation(
    PROGRAM, "/opt/bundles/ours", data=Path("/srv/disk/record"), compiles=True
)
REACHED = Installation(
    PROGRAM,
    "pneumonia-cxr",
    host="0.0.0.0",
    port=8443,
    hosts=("xray.clinic.lan",),
    secured=TLS,
    watched=(Path("/srv/incoming"), Path("/var/lib/medimg-edge/node")),
    keep_images=7,
    keep_records=3650,
)
stations = pytest.mark.parametrize(
    "station", [LOOPBACK, OTHER_FOLDER, REACHED], ids=["loopback", "other-folder", "reached"]
)


class Done(NamedTuple):
    code: int
    out: str
    err: str


def install(*words: object) -> Done:
    """Of a program that is elsewhere: this one may lie in a home, which is refused."""
    command = [sys.executable, "-m", "medimg_edge.cli", "kiosk", "install", *map(str, words)]
    command += ["--program", str(PROGRAM)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return Done(done.returncode, done.stdout, done.stderr)


def analyze(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(SYSTEMD_ANALYZE), *map(str, arguments)], capture_output=True, text=True, timeout=60
    )


def values(text: str, name: str) -> list[str]:
    lines = (line.partition("=") for line in text.splitlines())
    return [value for key, _, value in lines if key == name]


@systemd
@stations
@pytest.mark.parametrize("path", [units.SERVICE, units.SCREEN], ids=lambda path: path.stem)
def test_it_is_closed(station: Installation, path: Path, tmp_path: Path):
    unit = tmp_path / path.name
    unit.write_text(units.files(station)[path])
    security = "security", "--offline=yes", "--no-pager"
    done = analyze(*security, f"--threshold={MOST_EXPOSURE[path]}", unit)
    if "unrecognized option" in done.stderr:
        pytest.skip("this systemd-analyze, older than 250, knows no --offline")
    assert done.returncode == 0, done.stdout + done.stderr
    assert analyze(*security, "--threshold=0", unit).returncode != 0


@systemd
@stations
def test_systemd_understands_it(station: Installation, tmp_path: Path):
    """Beside a stand-in for the unit of seatd, which this machine may not have."""
    found = units.files(station)
    there = {str(each): sys.executable for each in (PROGRAM, units.CAGE)}
    (tmp_path / "seatd.service").write_text(f"[Service]\nExecStart={sys.executable}\n")
    paths = []
    for path in (units.SERVICE, units.SCREEN):
        text = found[path]
        for program, one_that_is_there in there.items():
            text = text.replace(f"={program} ", f"={one_that_is_there} ")
        paths.append(tmp_path / path.name)
        paths[-1].write_text(text)
    done = analyze("verify", *paths)
    assert (done.returncode, done.stderr) == (0, "")
    paths[1].write_text(paths[1].read_text().replace("ProtectHome=", "ProtectHouse="))
    assert "ProtectHouse" in analyze("verify", *paths).stderr


@pytest.mark.skipif(not shutil.which("systemd-sysusers"), reason="it is not installed")
def test_the_users_are_made(tmp_path: Path):
    (tmp_path / "etc").mkdir()
    conf = tmp_path / units.USERS.relative_to("/")
    conf.parent.mkdir()
    conf.write_text(units.files(LOOPBACK)[units.USERS])
    command = ["systemd-sysusers", f"--root={tmp_path}"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    made = {line.split(":")[0]: line for line in (tmp_path / "etc/passwd").read_text().splitlines()}
    assert made.keys() == {"medimg", "medimg-screen"}
    assert all(line.endswith(":/usr/sbin/nologin") for line in made.values())


def test_what_the_service_is_told():
    (line,) = values(units.service(LOOPBACK), "ExecStart")
    data = "--data /var/lib/medimg-kiosk/kiosk"
    assert line == f"{PROGRAM} serve pneumonia-cxr --port 8080 {data}"
    assert values(units.service(LOOPBACK), "StateDirectory") == ["medimg-kiosk"]
    assert values(units.service(LOOPBACK), "IPAddressAllow") == ["localhost"]
    assert values(units.service(OTHER_FOLDER), "StateDirectory") == []
    assert values(units.service(OTHER_FOLDER), "ReadWritePaths") == ["/srv/disk/record"]
    assert values(units.service(LOOPBACK), "MemoryDenyWriteExecute") == ["yes"]
    assert values(units.service(OTHER_FOLDER), "MemoryDenyWriteExecute") == ["no"]


def test_what_a_station_that_others_reach_is_told():
    text = units.service(REACHED)
    (line,) = values(text, "ExecStart")
    assert line.endswith(
        "--host 0.0.0.0 --data /var/lib/medimg-kiosk/kiosk --watch /srv/incoming "
        "--watch /var/lib/medimg-edge/node --allow-host xray.clinic.lan --keep-images 7 "
        "--keep-records 3650 --token-file %d/token --tls-cert %d/cert --tls-key %d/key"
    )
    assert values(text, "LoadCredential") == [
        "token:/etc/medimg/token",
        "cert:/etc/medimg/tls.crt",
        "key:/etc/medimg/tls.key",
    ]
    assert "0.0.0.0/0" not in text
    assert "https://localhost:8443/" in units.screen_unit(REACHED)


def test_serve_knows_every_option():
    """That it says what is wrong with the value shows that it took the rest."""
    (line,) = values(units.service(REACHED), "ExecStart")
    program, *words = shlex.split(line)
    assert Path(program) == PROGRAM
    command = [sys.executable, "-m", "medimg_edge.cli", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1, done.stderr
    assert done.stderr.startswith("error [service]: "), done.stderr
    assert "token" in done.stderr


def test_the_browser_shows_the_page_and_nothing_else():
    text = units.screen_unit(LOOPBACK)
    (line,) = values(text, "ExecStart")
    words = line.split()
    assert words[:4] == ["/usr/bin/cage", "-s", "--", "/usr/bin/chromium"]
    assert words[-1] == "http://127.0.0.1:8080/"
    for flag in (
        *("--kiosk", "--incognito", "--noerrdialogs", "--no-first-run", "--disable-sync"),
        *("--disable-background-networking", "--disable-component-update"),
    ):
        assert flag in words
    assert "--no-sandbox" not in words
    assert values(text, "ExecStartPre") == [f"{PROGRAM} kiosk wait http://127.0.0.1:8080/"]
    assert values(text, "IPAddressAllow") == ["localhost"]
    assert values(text, "InaccessiblePaths") == ["-/var/lib/medimg-kiosk"]
    rules = json.loads(units.files(LOOPBACK)[units.POLICIES])
    assert set(rules["URLBlocklist"]) >= {"*", "chrome://*"}  # the first alone leaves settings
    assert "http://127.0.0.1:8080/" in rules["URLAllowlist"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("user", "root"),
        ("user", "medimg\nUser=root"),
        ("user", "%u"),
        ("user", "a b"),
        ("user", 'a"'),
        ("user", "$HOME"),
        ("user", "Medimg"),
        ("user", ""),
        ("screen_user", "medimg"),
        ("screen_user", "root"),
        ("host", "127.0.0.1\nExecStartPre=/bin/sh"),
        ("host", "%H"),
        ("host", "0.0.0.0"),
        ("hosts", ("a b",)),
        ("hosts", ("a;b",)),
        ("port", 0),
        ("port", 65536),
        ("bundle", "a b"),
        ("bundle", "/opt/%h"),
        ("program", Path("/root/venv/bin/medimg-edge")),
        ("data", Path("/var/lib/x\nUser=root")),
        ("data", Path("/var/lib/%u")),
        ("data", Path("/var/lib/a b")),
        ("data", Path("/var/lib/'a'")),
        ("data", Path("/var/lib/a\\x20b")),
        ("data", Path("/var/lib/../../etc")),
        ("data", Path("relative")),
        ("data", Path("/home/nurse/record")),
        ("data", Path("/tmp/record")),
        ("watched", (Path("/root/incoming"),)),
        ("watched", (Path("/srv/in coming"),)),
        ("watched", (Path("/srv/${HOME}"),)),
        ("watched", (Path("/"),)),
        ("secured", TLS),  # nobody else reaches 127.0.0.1
    ],
)
def test_what_systemd_could_misread_is_refused(field: str, value: object):
    with pytest.raises(ServiceRefused):
        replace(LOOPBACK, **{field: value})


@pytest.mark.parametrize(
    "words",
    [
        ("--user", "medimg\nUser=root"),
        ("--data", "/var/lib/%u"),
        ("--host", "0.0.0.0"),
        ("--port", "0"),
        ("--token-file", "/etc/token"),
        ("--keep-images", "-1"),
    ],
    ids=lambda words: words[0],
)
def test_the_command_refuses_before_it_writes(words: tuple[str, str], tmp_path: Path):
    done = install("pneumonia-cxr", *words, "--root", tmp_path)
    assert done.code in (1, 2)
    assert "Traceback" not in done.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", [(), ("--no-screen",)], ids=["screen", "no-screen"])
def test_dry_run_prints_what_would_be_written(words: tuple[str, ...], tmp_path: Path):
    printed = install("pneumonia-cxr", "--dry-run", *words)
    assert printed.code == 0, printed.err
    written = install("pneumonia-cxr", "--root", tmp_path, *words)
    assert written.code == 0, written.err
    files = sorted(each for each in tmp_path.rglob("*") if each.is_file())
    for each in files:
        assert f"==> /{each.relative_to(tmp_path)} <==\n{each.read_text()}" in printed.out
        assert each.stat().st_mode & 0o777 == 0o644
        assert f"wrote {each}" in written.out
    assert len(files) == printed.out.count("==> ") == (2 if words else 4)
    assert "    systemctl daemon-reload\n" in written.out
    assert ("medimg-kiosk-screen" in written.out) is not bool(words)
    assert ("not installed: cage" in written.err) is not bool(words)


@pytest.mark.parametrize("package", ["openvino", "onnxruntime"])
def test_openvino_may_compile(package: str, tmp_path: Path):
    """Where it is in the environment of the program."""
    environment = tmp_path / PROGRAM.parent.parent.relative_to("/")
    (environment / "lib" / "python3.11" / "site-packages" / package).mkdir(parents=True)
    assert install("pneumonia-cxr", "--root", tmp_path).code == 0
    text = (tmp_path / units.SERVICE.relative_to("/")).read_text()
    expected = "no" if package == "openvino" else "yes"
    assert values(text, "MemoryDenyWriteExecute") == [expected]


def test_it_is_written_anew_whole(tmp_path: Path):
    unit = tmp_path / units.SERVICE.relative_to("/")
    unit.parent.mkdir(parents=True)
    unit.write_text("old")
    assert install("pneumonia-cxr", "--root", tmp_path, "--port", 9090).code == 0
    assert "--port 9090" in unit.read_text()
    assert [each.name for each in unit.parent.iterdir() if each.name.startswith(".")] == []


def test_a_bundle_that_cannot_answer_is_refused(tmp_path: Path):
    done = install(tmp_path / "none", "--root", tmp_path)
    assert (done.code, done.err.split("]")[0]) == (1, "error [bundle-missing")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not shutil.which("openssl"), reason="openssl is not installed")
def test_what_docs_install_is_accepted(tmp_path: Path):
    certified(tmp_path)
    text = (ROOT / "docs" / "kiosk.md").read_text().replace("\\\n", " ")
    lines = [
        line for line in text.splitlines() if re.match(r" {4,}\S*medimg-edge kiosk install", line)
    ]
    assert len(lines) >= 5
    for line in lines:
        words = shlex.split(line, comments=True)[3:]
        there = {"/etc/medimg-edge/ca.crt": tmp_path / "ca.crt"}
        bundle, *options = (there.get(each, each) for each in words)
        assert bundle == "pneumonia-cxr" or str(bundle).startswith("/opt/bundles/")
        done = install("pneumonia-cxr", *options, "--dry-run")
        assert done.code == 0, f"{line}\n{done.err}"


@pytest.mark.skipif(not shutil.which("openssl"), reason="openssl is not installed")
def test_the_authority_is_told_to_the_screen(tmp_path: Path):
    certified(tmp_path)
    rules = json.loads(units.policies("https://localhost/", tmp_path / "ca.crt"))
    (known,) = rules["CACertificates"]
    assert ssl.PEM_cert_to_DER_cert((tmp_path / "ca.crt").read_text()) == b64decode(known)
    for wrong in ("ca.key", "missing.crt"):
        with pytest.raises(ServiceRefused, match="cannot be read as one certificate"):
            units.policies("https://localhost/", tmp_path / wrong)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="becomes another user")
def test_without_root_nothing_is_written():
    program = (
        "import os\n"
        "from pathlib import Path\n"
        "from medimg_edge import whole_file\n"  # now: the other user may not be able to read it
        "from medimg_edge.cli import kiosk\n"
        "os.setuid(65534)\n"
        "kiosk._write({Path('/etc/medimg-edge-test'): ''}, None)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 1, done.stdout
    assert "sudo" in done.stderr


def test_every_unit_is_sections_of_assignments():
    for station in (LOOPBACK, OTHER_FOLDER, REACHED):
        for path in (units.SERVICE, units.SCREEN):
            parsed = configparser.ConfigParser(strict=False, interpolation=None)
            parsed.read_string(units.files(station)[path])
            assert parsed.sections() == ["Unit", "Service", "Install"]


class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"the station's page")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
        pass


def certified(folder: Path) -> ssl.SSLContext:
    """By an authority of its own, ca.crt, for localhost."""
    (folder / "for").write_text("subjectAltName=DNS:localhost")
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    by = ("-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2")
    for words in (
        ("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.crt", "-subj", "/CN=ca"),
        ("req", *key, "-keyout", "tls.key", "-out", "tls.csr", "-subj", "/CN=station"),
        ("x509", "-req", "-in", "tls.csr", "-out", "tls.crt", "-extfile", "for", *by),
    ):
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    return context


@pytest.mark.browser
@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="mounts, as root")
@pytest.mark.parametrize("is_trusted", [True, False])
def test_chromium_shows_the_page_alone(is_trusted: bool, tmp_path: Path):
    """By TLS, whose authority Chromium has from the policies."""
    pytest.importorskip("selenium")
    for program in ("chromium", "chromedriver", "openssl", "unshare"):
        if not shutil.which(program):
            pytest.skip(f"{program} is not installed")
    context = certified(tmp_path)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            url = f"https://localhost:{server.server_port}/"
            rules = units.policies(url, tmp_path / "ca.crt" if is_trusted else None)
            (tmp_path / "policies.json").write_text(rules)
            found = shown(tmp_path, server.server_port)
        finally:
            server.shutdown()
            thread.join()
    page, *others = found
    assert page == ("the station's page" if is_trusted else "Your connection is not private")
    assert set(others) == {"This page is blocked"}


def shown(folder: Path, port: int) -> list[str]:
    urls = (
        *(f"https://localhost:{port}/", f"https://127.0.0.1:{port}/", "https://example.org/"),
        *("file:///etc/passwd", "chrome://settings/", "chrome://version/", "chrome://downloads/"),
    )
    command = ["unshare", "--mount", sys.executable, "-m", "tests.device.kiosk_policies", folder]
    done = subprocess.run(
        command, input="\n".join(urls), capture_output=True, text=True, timeout=120, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    lines = dict(map(json.loads, done.stdout.splitlines()))
    return [lines[each] for each in urls]


class Health(Page):
    asked = 0

    def do_GET(self) -> None:
        type(self).asked += 1
        self.send_response(200 if self.path == "/healthz" and self.asked > 1 else 503)
        self.end_headers()


def test_the_screen_waits_until_the_service_is_alive():
    with http.server.HTTPServer(("127.0.0.1", 0), Health) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            wait(f"http://127.0.0.1:{server.server_port}/", 60)
        finally:
            server.shutdown()
            thread.join()
    assert Health.asked == 2
    with pytest.raises(ServiceRefused, match="did not answer in 0 s"):
        wait(f"http://127.0.0.1:{server.server_port}/", 0)
    for wrong in ("file:///etc/passwd", "127.0.0.1:8080", "http://[", "http://host:port/"):
        with pytest.raises(ServiceRefused, match="is no URL"):
            wait(wrong, 0)
