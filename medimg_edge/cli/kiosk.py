"""The commands that make a machine a reading station."""

import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medimg_edge.cli import output
from medimg_edge.cli.options import AllowUnsignedOption
from medimg_edge.errors import WriteError

if TYPE_CHECKING:
    from medimg_edge.kiosk.installation import Installation, Secured

kiosk = typer.Typer(
    name="kiosk",
    help="Make a machine a reading station.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@kiosk.command()
def install(
    bundle: Annotated[str, typer.Argument(help="The bundle that answers: a folder, or a name.")],
    user: Annotated[str, typer.Option(metavar="NAME", help="Who the service is.")] = "medimg",
    screen_user: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Who the browser is.", show_default="that of --user, and -screen"
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the files, and write none.")
    ] = False,
    screen: Annotated[
        bool, typer.Option("--screen/--no-screen", help="Show the page on this machine, too.")
    ] = True,
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8080,
    data: Annotated[
        Path, typer.Option(metavar="DIR", help="The folder for the record, and for tune's choice.")
    ] = Path("/var/lib/medimg-kiosk"),
    watch: Annotated[
        list[Path] | None,
        typer.Option(metavar="DIR", help="Offer the images in this folder. Repeat it."),
    ] = None,
    keep_images: Annotated[
        float | None,
        typer.Option(metavar="DAYS", min=1, help="Keep images. Default: they are not."),
    ] = None,
    keep_records: Annotated[
        float | None,
        typer.Option(metavar="DAYS", min=1, help="Remove older records. Default: none."),
    ] = None,
    host: Annotated[
        str, typer.Option(help="The address; another one needs a token and TLS.")
    ] = "127.0.0.1",
    allow_host: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A name by which others call this machine. Repeat it."),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Its first line is what every request has to show."),
    ] = None,
    tls_cert: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Our certificate, PEM; also for localhost.")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(metavar="FILE", help="Its key.")] = None,
    tls_ca: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The authority that the screen is to trust, PEM."),
    ] = None,
    trusted: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="The public keys that are trusted.",
            show_default="trusted in the folder of --data",
        ),
    ] = None,
    allow_unsigned: AllowUnsignedOption = False,
    memory: Annotated[
        int, typer.Option(min=512, metavar="MB", help="The most that service and model may take.")
    ] = 1024,
    program: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="medimg-edge on that machine.", show_default="what runs now"
        ),
    ] = None,
    root: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write below this folder, such as a mounted disk."),
    ] = None,
) -> None:
    """Write what starts `serve` with the machine, and shows its page on the whole screen.

    A systemd unit for the service, one for Chromium in the compositor cage, the users of both, and
    rules by which Chromium shows nothing else. Nothing is installed, started or enabled: what is to
    be done next is printed. docs/kiosk.md goes from a blank machine to a station.

    Examples:

    medimg-edge kiosk install pneumonia-cxr --dry-run

    medimg-edge kiosk install pneumonia-cxr --user medimg --watch /srv/incoming --keep-images 7

    medimg-edge kiosk install /opt/bundles/ours --host 0.0.0.0 --allow-host xray.clinic.lan
    --token-file /etc/medimg-edge/token --tls-cert /etc/medimg-edge/tls.crt --tls-key
    /etc/medimg-edge/tls.key --tls-ca /etc/medimg-edge/ca.crt
    """
    from medimg_edge.kiosk import units
    from medimg_edge.kiosk.installation import Installation

    station = Installation(
        program=program or _program(),
        bundle=_bundle(bundle, _below(root, data)),
        user=user,
        screen_user=screen_user or f"{user}-screen",
        host=host,
        port=port,
        hosts=tuple(allow_host or ()),
        secured=_secured(token_file, tls_cert, tls_key, tls_ca),
        data=data,
        watched=tuple(watch or ()),
        keep_images=keep_images,
        keep_records=keep_records,
        trusted=trusted,
        allow_unsigned=allow_unsigned,
        memory_mb=memory,
        compiles=_compiles(program, root),
    )
    files = units.files(station, screen=screen)
    if dry_run:
        for path, text in files.items():
            typer.echo(f"==> {path} <==\n{text}")
    else:
        _write(files, root)
        _say_what_is_next(station, root, screen=screen)


@kiosk.command()
def wait(
    url: Annotated[str, typer.Argument(help="Of the service.")] = "http://127.0.0.1:8080/",
    seconds: Annotated[float, typer.Option(min=0, help="Then it is given up, exit 1.")] = 60,
) -> None:
    """Wait until a service answers. The screen does, before it shows the page.

    Examples:

    medimg-edge kiosk wait

    medimg-edge kiosk wait https://localhost:8443/ --seconds 10
    """
    from medimg_edge.kiosk.waiting import wait as wait_for

    wait_for(url, seconds)


def _program() -> Path:
    """What runs now, as its own environment names it; not where a link leads."""
    return Path(sys.executable).parent / "medimg-edge"


def _compiles(program: Path | None, root: Path | None) -> bool:
    """Whether OpenVINO is in the program's environment; of another one, by its files."""
    if program is None:
        return find_spec("openvino") is not None
    environment = Path(root or "/", *program.parts[1:]).parent.parent
    return any(environment.glob("lib*/python3*/site-packages/openvino"))


def _bundle(given: str, data: Path) -> str:
    """The bundle as the service is to name it, which may be installed in the folder of its record.

    Raises what ``Bundle.open`` does.
    """
    from medimg_edge import state
    from medimg_edge.bundle import Bundle

    os.environ[state.VARIABLE] = str(data)  # as in its unit
    Bundle.open(given)
    return os.path.abspath(given) if os.path.isdir(given) else given


def _secured(
    token: Path | None, cert: Path | None, key: Path | None, ca: Path | None
) -> "Secured | None":
    if token is None and cert is None and key is None and ca is None:
        return None
    if token is None or cert is None or key is None:
        raise typer.BadParameter(
            "A station that others reach needs --token-file, --tls-cert and --tls-key, all three."
        )
    from medimg_edge.kiosk.installation import Secured

    return Secured(token, cert, key, ca)


def _write(files: dict[Path, str], root: Path | None) -> None:
    from medimg_edge.whole_file import write_whole

    if root is None and os.name == "posix" and os.geteuid() != 0:
        raise WriteError("Only root writes to /etc: run it by sudo, or look with --dry-run.")
    for path, text in files.items():
        at = _below(root, path)
        try:
            at.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise WriteError(f"{at.parent} cannot be made: {error.strerror}.") from error
        write_whole(at, text.encode())
        typer.echo(f"wrote {at}")


def _below(root: Path | None, path: Path) -> Path:
    return path if root is None else root / path.relative_to("/")


def _say_what_is_next(station: "Installation", root: Path | None, *, screen: bool) -> None:
    from medimg_edge.kiosk import units

    programs = (units.CAGE, units.CHROMIUM, units.SEATD) if screen else ()
    if missing := [each.name for each in programs if not _below(root, each).exists()]:
        output.warn(f"not installed: {', '.join(missing)}. docs/kiosk.md says which packages.")
    commands = ["systemd-sysusers"]
    if station.state_folder is None:
        commands.append(
            f"install -d -m 700 -o {station.user} -g {station.user} {station.data}  # its record"
        )
    names = "medimg-kiosk medimg-kiosk-screen" if screen else "medimg-kiosk"
    commands += ["systemctl daemon-reload", f"systemctl enable --now {names}"]
    typer.echo("\nNext, as root on that machine:")
    for each in commands:
        typer.echo(f"    {each}")
