"""The files that make a machine a reading station: systemd units, users, rules for the browser."""

from __future__ import annotations

import json
import ssl
from base64 import b64encode
from pathlib import Path

from medimg_edge.errors import ServiceRefused
from medimg_edge.kiosk.installation import Installation

SERVICE = Path("/etc/systemd/system/medimg-kiosk.service")
SCREEN = Path("/etc/systemd/system/medimg-kiosk-screen.service")
USERS = Path("/etc/sysusers.d/medimg-kiosk.conf")
POLICIES = Path("/etc/chromium/policies/managed/medimg-kiosk.json")

CAGE, CHROMIUM, SEATD = map(Path, ("/usr/bin/cage", "/usr/bin/chromium", "/usr/sbin/seatd"))

RECORD = "kiosk"
"""Below the folder of a station, as `serve` and `audit` find it there without being told."""

SCREEN_HOME = Path("/run/medimg-kiosk-screen")
"""In memory: what a browser keeps is gone when it ends."""

_HOUSE = "link-local 10.0.0.0/8 172.16.0.0/12 192.168.0.0/16 fc00::/7"
_FLAGS = (
    "--kiosk --incognito --ozone-platform=wayland --noerrdialogs --no-first-run "
    "--no-default-browser-check --disable-pinch --overscroll-history-navigation=0 "
    "--hide-crash-restore-bubble --password-store=basic --disable-background-networking "
    "--disable-component-update --disable-sync --disable-breakpad --disable-domain-reliability "
    "--no-pings --disable-features=Translate,MediaRouter,OptimizationHints"
)
_CLOSED = """\
PrivateMounts=yes
PrivateIPC=yes
KeyringMode=private
ProtectHome=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
LockPersonality=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
SystemCallArchitectures=native
SystemCallErrorNumber=EPERM
"""
"""What both units have."""


def files(station: Installation, *, screen: bool = True) -> dict[Path, str]:
    """The content of each file, by its path. Raises ServiceRefused."""
    found = {SERVICE: service(station), USERS: users(station, screen=screen)}
    if screen:
        authority = station.secured.ca if station.secured else None
        found |= {SCREEN: screen_unit(station), POLICIES: policies(station.url, authority)}
    return found


def service(station: Installation) -> str:
    """The unit that answers; it is as closed as those of docs/hosts."""
    return f"""\
# Made by `medimg-edge kiosk install`, which writes it anew: changes belong into
# `systemctl edit medimg-kiosk`.

[Unit]
Description=medimg-edge: a reading station
After=network.target
RequiresMountsFor={_words(station.data, *station.watched)}
# What ends it may pass, such as a full disk: try again for ever.
StartLimitIntervalSec=0

[Service]
Type=exec
User={station.user}
Group={station.user}
Environment=MEDIMG_EDGE_STATE={station.data}
{_record_folder(station)}
UMask=0077
{_credentials(station)}ExecStart={_words(station.program, *_serve(station))}
Restart=always
RestartSec=5
# Wrong usage does not pass.
RestartPreventExitStatus=2
# The signal is for the service alone: it ends what answers, after the answers that it has begun.
KillMode=mixed
TimeoutStopSec=30

# An image that takes too much memory costs its answer, and not the service.
MemoryMax={station.memory_mb}M
OOMPolicy=continue
TasksMax=256
LimitNOFILE=4096
# No image in a core dump.
LimitCORE=0

# Nothing but {"this machine" if station.secured is None else "the house"}.
RestrictAddressFamilies=AF_INET AF_INET6
IPAddressDeny=any
IPAddressAllow=localhost{"" if station.secured is None else f" {_HOUSE}"}

# Reads the system, and writes its own folder, from which nothing is run.
ProtectSystem=strict
NoExecPaths={station.data}
PrivateTmp=yes
PrivateDevices=yes
DevicePolicy=closed
RemoveIPC=yes

# Not ProcSubset=pid: what the processor can do is read in /proc/cpuinfo.
ProtectProc=invisible
PrivateUsers=yes
ProtectKernelTunables=yes
{_memory(station)}
RestrictNamespaces=yes
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
{_CLOSED}
[Install]
WantedBy=multi-user.target
"""


def screen_unit(station: Installation) -> str:
    """The unit that shows the page: cage, a compositor of one window, and in it Chromium.

    Chromium closes itself in, for which it needs namespaces; its compiler needs memory that is
    writable and executable. What it keeps is in memory, and gone when it ends.
    """
    return f"""\
# Made by `medimg-edge kiosk install`, which writes it anew: changes belong into
# `systemctl edit medimg-kiosk-screen`.

[Unit]
Description=medimg-edge: the reading station's screen
Requires=seatd.service
Wants=medimg-kiosk.service
After=seatd.service medimg-kiosk.service
Conflicts=getty@tty1.service
After=getty@tty1.service
# No display yet, or a browser that ended: try again for ever.
StartLimitIntervalSec=0

[Service]
Type=simple
User={station.screen_user}
Group={station.screen_user}
SupplementaryGroups=video render
RuntimeDirectory={SCREEN_HOME.name}
RuntimeDirectoryMode=0700
WorkingDirectory={SCREEN_HOME}
Environment=HOME={SCREEN_HOME}
Environment=XDG_RUNTIME_DIR={SCREEN_HOME}
Environment=XDG_SESSION_TYPE=wayland
Environment=LIBSEAT_BACKEND=seatd
UMask=0077
ExecStartPre={station.program} kiosk wait {station.url}
# -s: Ctrl+Alt+F2 is a login for whoever looks after the machine.
ExecStart={CAGE} -s -- {CHROMIUM} {_FLAGS} {station.url}
Restart=always
RestartSec=2
TimeoutStartSec=infinity
TimeoutStopSec=10
LimitCORE=0

# This machine alone.
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
IPAddressDeny=any
IPAddressAllow=localhost

ProtectProc=invisible
ProtectSystem=strict
InaccessiblePaths=-{station.data}
PrivateTmp=yes
DevicePolicy=closed
DeviceAllow=char-drm rw
RestrictNamespaces=user pid net
SystemCallFilter=~@clock @cpu-emulation @module @obsolete @raw-io @reboot @swap
{_CLOSED}
[Install]
WantedBy=graphical.target
"""


def users(station: Installation, *, screen: bool) -> str:
    """The users, for `systemd-sysusers`: without a password or a shell. Those that exist stay."""
    lines = [f'u {station.user} - "Reading station" {station.data} /usr/sbin/nologin']
    if screen:
        lines.append(f'u {station.screen_user} - "Its screen" {SCREEN_HOME} /usr/sbin/nologin')
    return "\n".join(lines) + "\n"


def policies(url: str, authority: Path | None = None) -> str:
    """What Chromium may do on this machine: show the page at ``url``, and ask nobody anything.

    authority: PEM, whom it trusts. https://chromeenterprise.google/policies. Raises ServiceRefused.
    """
    found = {
        "URLBlocklist": ["*", "chrome://*", "chrome-untrusted://*"],
        "URLAllowlist": [url, "chrome://print", "chrome-untrusted://print"],
        "DeveloperToolsAvailability": 2,
        "ExtensionInstallBlocklist": ["*"],
        "BrowserSignin": 0,
        "SyncDisabled": True,
        "MetricsReportingEnabled": False,
        "SafeBrowsingProtectionLevel": 0,
        "SearchSuggestEnabled": False,
        "NetworkPredictionOptions": 2,
        "DnsOverHttpsMode": "off",
        "ComponentUpdatesEnabled": False,
        "TranslateEnabled": False,
        "SpellCheckServiceEnabled": False,
        "PasswordManagerEnabled": False,
        "AutofillAddressEnabled": False,
        "AutofillCreditCardEnabled": False,
        "BackgroundModeEnabled": False,
        "PromotionsEnabled": False,
        "DefaultGeolocationSetting": 2,
        "DefaultNotificationsSetting": 2,
        "AudioCaptureAllowed": False,
        "VideoCaptureAllowed": False,
    }
    if authority is not None:
        found["CACertificates"] = [_certificate(authority)]
    return json.dumps(found, indent=2) + "\n"


def _serve(station: Installation) -> list[object]:
    """The words after the program."""
    words: list[object] = ["serve", station.bundle, "--port", station.port]
    if station.host != "127.0.0.1":
        words += ["--host", station.host]
    words += ["--data", station.data / RECORD]
    for option, values in (("--watch", station.watched), ("--allow-host", station.hosts)):
        for each in values:
            words += [option, each]
    kept = (("--keep-images", station.keep_images), ("--keep-records", station.keep_records))
    for option, days in kept:
        if days is not None:
            words += [option, f"{days:g}"]
    if station.trusted is not None:
        words += ["--trusted", station.trusted]
    if station.allow_unsigned:
        words.append("--allow-unsigned")
    if station.secured is not None:  # %d: where systemd puts credentials
        words += ["--token-file", "%d/token", "--tls-cert", "%d/cert", "--tls-key", "%d/key"]
    return words


def _memory(station: Installation) -> str:
    if station.compiles:
        return "# OpenVINO is installed, and compiles what it runs.\nMemoryDenyWriteExecute=no"
    return "MemoryDenyWriteExecute=yes"


def _record_folder(station: Installation) -> str:
    if (name := station.state_folder) is not None:
        return f"StateDirectory={name}\nStateDirectoryMode=0700\nWorkingDirectory={station.data}"
    return f"ReadWritePaths={station.data}\nWorkingDirectory={station.data}"


def _credentials(station: Installation) -> str:
    """Read by root when the service starts: its user need not be able to."""
    if station.secured is None:
        return ""
    given = (
        ("token", station.secured.token),
        ("cert", station.secured.cert),
        ("key", station.secured.key),
    )
    return "".join(f"LoadCredential={name}:{path}\n" for name, path in given)


def _certificate(path: Path) -> str:
    """DER in base64, as the policy wants it."""
    try:
        return b64encode(ssl.PEM_cert_to_DER_cert(path.read_text("ascii").strip())).decode()
    except (OSError, ValueError) as error:
        raise ServiceRefused(
            f"{path} cannot be read as one certificate in PEM: "
            f"{getattr(error, 'strerror', None) or error}."
        ) from error


def _words(*words: object) -> str:
    return " ".join(map(str, words))
