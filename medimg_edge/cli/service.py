"""The command that serves: the kiosk's page and the interface of other programs."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medimg_edge.cli.options import (
    AllowUnsignedOption,
    ForceOption,
    ProfileOption,
    RiskOption,
    TrustedOption,
)
from medimg_edge.errors import ExtraMissing, ServiceRefused

if TYPE_CHECKING:
    from medimg_edge.kiosk.settings import TlsFiles

INTERRUPTED = 130


class LogFormat(StrEnum):
    """How log lines are written."""

    text = "text"
    json = "json"


def serve(
    bundle: Annotated[Path, typer.Argument(help="The bundle that answers: a folder, or a name.")],
    host: Annotated[
        str,
        typer.Option(help="The address to listen on; another one needs a token and TLS."),
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 is any free one.")] = 8080,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="The folder of the record. Default: kiosk, where tune's choice is."
        ),
    ] = None,
    watch: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="DIR",
            help="Offer the images in this folder, or those of a running `listen --out DIR "
            "--keep-images`. Repeat it.",
        ),
    ] = None,
    keep_images: Annotated[
        float | None,
        typer.Option(
            metavar="DAYS",
            min=1,
            help="Keep images and their pictures. Default: none, and what was kept is removed.",
        ),
    ] = None,
    keep_records: Annotated[
        float | None,
        typer.Option(metavar="DAYS", min=1, help="Remove older records. Default: none."),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            envvar="MEDIMG_EDGE_TOKEN_FILE",
            help="Its first line is what every request has to show.",
        ),
    ] = None,
    tls_cert: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Speak TLS alone: our certificate, PEM.")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(metavar="FILE", help="Its key.")] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A name by which others call this machine. Repeat it."),
    ] = None,
    artifact: Annotated[
        str, typer.Option(help="A model file of the bundle; auto is what tune chose.")
    ] = "auto",
    profile: ProfileOption = "auto",
    force: ForceOption = False,
    risk: RiskOption = None,
    trusted: TrustedOption = None,
    allow_unsigned: AllowUnsignedOption = False,
    reserve: Annotated[
        int, typer.Option(min=1, metavar="MB", help="With less free disk, images are refused.")
    ] = 100,
    answer_seconds: Annotated[
        int, typer.Option(min=1, metavar="S", help="An image that takes longer is given up.")
    ] = 20,
    log_format: Annotated[
        LogFormat, typer.Option(help="Lines on standard error: words, or JSON.")
    ] = LogFormat.text,
) -> None:
    """Serve a touch page and an HTTP interface on this machine, and keep a record of the answers.

    Nothing is answered before the golden set has passed here. An answer is told when it is safe in
    the record, which `medimg-edge audit` checks and exports. It holds no image, no file's name and
    no patient. Exit 0 after SIGTERM, 130 after Ctrl-C.

    A bundle answers if a trusted key signed it. Of a bundle that is given by its name, `install`
    and `rollback` reach a service that runs: it takes the other one between two images.

    Examples:

    medimg-edge serve pneumonia-cxr

    medimg-edge serve pneumonia-cxr --risk 0.05

    medimg-edge serve our-bundle --watch /srv/incoming --keep-images 7 --keep-records 3650

    medimg-edge serve our-bundle --host 0.0.0.0 --allow-host xray.clinic.lan --token-file token
    --tls-cert our.crt --tls-key our.key
    """
    with _installed():
        from medimg_edge.kiosk import service
        from medimg_edge.kiosk.settings import Limits, Settings
        from medimg_edge.kiosk.wire import Retention

        settings = Settings(
            host=host,
            port=port,
            hosts=tuple(allow_host or ()),
            token=_token(token_file),
            tls=_tls_files(tls_cert, tls_key),
            limits=Limits(reserve_bytes=reserve * 10**6, answer_seconds=answer_seconds),
            log_json=log_format is LogFormat.json,
        )
        number = service.run(
            bundle,
            settings,
            folder=data or _folder(),
            watched=tuple(watch or ()),
            retention=Retention(keep_images, keep_records),
            artifact=artifact,
            profile=None if profile == "none" else profile,
            force=force,
            risk=risk,
            trusted=trusted,
            allow_unsigned=allow_unsigned,
            started=lambda url: typer.echo(f"{url}/"),
        )
    if number == signal.SIGINT:
        raise typer.Exit(INTERRUPTED)


def _token(file: Path | None) -> str | None:
    if file is None:
        return None
    try:
        return file.read_text("ascii").split("\n", 1)[0].strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ServiceRefused(
            f"{file} cannot be read as a token: {getattr(error, 'strerror', None) or error}."
        ) from error


def _tls_files(cert: Path | None, key: Path | None) -> "TlsFiles | None":
    if cert is None and key is None:
        return None
    if cert is None or key is None:
        raise typer.BadParameter("TLS needs --tls-cert and --tls-key, both.")
    from medimg_edge.kiosk.settings import TlsFiles

    return TlsFiles(cert, key)


def _folder() -> Path:
    from medimg_edge import state

    if (kept := state.folder()) is None:
        raise ServiceRefused("This user has no home for the record: say where with --data DIR.")
    return kept / "kiosk"


@contextmanager
def _installed() -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        raise ExtraMissing(
            f"`serve` needs {error.name}, which is not installed: pip install 'medimg-edge[serve]'"
        ) from error
