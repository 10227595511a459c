"""The command that listens: images in, results out, by DICOM."""

import signal
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from medimg_edge.addresses import is_loopback
from medimg_edge.cli import output
from medimg_edge.cli.options import (
    AllowUnsignedOption,
    ForceOption,
    ProfileOption,
    RiskOption,
    TrustedOption,
)
from medimg_edge.errors import ExtraMissing, InputMissing, WriteError

if TYPE_CHECKING:
    from medimg_edge.bundle import Bundle
    from medimg_edge.classifier import Classifier
    from medimg_edge.dicom.node.service import Answer, Answered, Service
    from medimg_edge.dicom.node.settings import TlsFiles
    from medimg_edge.dicom.pseudonym import Pseudonyms
    from medimg_edge.record import Record

INTERRUPTED = 130
LOOKS_SECONDS = 1.0
"""How often it is looked whether everything still runs."""

_KINDS = ("sr", "sc", "json")


def listen(
    bundle: Annotated[Path, typer.Argument(help="The bundle that answers: a folder, or a name.")],
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="The folder for images, results and what waits.")
    ],
    port: Annotated[int, typer.Option(help="0 is any free one.")] = 11112,
    aet: Annotated[str, typer.Option(metavar="AET", help="Our AE title.")] = "MEDIMG",
    host: Annotated[
        str, typer.Option(help="The address to listen on; only this machine reaches the default.")
    ] = "127.0.0.1",
    allow: Annotated[
        list[str] | None,
        typer.Option(
            metavar="AET", help="An AE title that may send. Repeat it. Default: every one."
        ),
    ] = None,
    tls_cert: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Speak TLS alone: our certificate, PEM.")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(metavar="FILE", help="Its key.")] = None,
    tls_ca: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The authorities whose certificates peers show."),
    ] = None,
    results: Annotated[
        str,
        typer.Option(
            metavar="KINDS",
            help="Reports (sr), pictures (sc), and records (json), separated by commas.",
        ),
    ] = ",".join(_KINDS),
    send_to: Annotated[
        str | None,
        typer.Option(metavar="AET@HOST:PORT", help="Send reports and pictures to this archive."),
    ] = None,
    send_tls: Annotated[
        bool, typer.Option("--send-tls", help="By TLS, with the same three files.")
    ] = False,
    keep_images: Annotated[
        bool, typer.Option("--keep-images", help="Do not delete images once they are answered.")
    ] = False,
    keep_results: Annotated[
        bool,
        typer.Option("--keep-results", help="Do not delete what the archive has acknowledged."),
    ] = False,
    queue: Annotated[
        int, typer.Option(min=1, help="Images that may wait for an answer; more are refused.")
    ] = 1000,
    reserve: Annotated[
        int, typer.Option(min=0, metavar="MB", help="With less free disk, images are refused.")
    ] = 256,
    artifact: Annotated[
        str, typer.Option(help="A model file of the bundle; auto is what tune chose.")
    ] = "auto",
    profile: ProfileOption = "auto",
    force: ForceOption = False,
    risk: RiskOption = None,
    trusted: TrustedOption = None,
    allow_unsigned: AllowUnsignedOption = False,
) -> None:
    """Receive DICOM images, answer them, and send the results to an archive, until it is ended.

    An image is acknowledged when it is safe on the disk. Whatever ends the process or the power,
    the next start goes on: every acknowledged image is answered, and every result is kept in DIR
    or sent, once. Exit 0 after SIGTERM, 130 after Ctrl-C.

    DIR/results/ID-MODEL/ has the results of an image, DIR/outbox/ID-MODEL/ those that are still to
    be sent. ID stands for its SOP Instance UID, and does not give it away; MODEL is the beginning
    of the bundle's hash.

    A bundle answers if a trusted key signed it. One that is installed meanwhile by the same name
    answers from the next start on.

    Examples:

    medimg-edge listen pneumonia-cxr --out node/

    medimg-edge listen our-bundle --out node/ --host 0.0.0.0 --allow CR1 --send-to PACS@10.0.0.5:104

    medimg-edge listen our-bundle --out node/ --tls-cert our.crt --tls-key our.key --tls-ca ca.crt
    """
    kinds = _kinds(results)
    tls = _tls_files(tls_cert, tls_key, tls_ca)
    if send_tls and not (send_to and tls):
        raise typer.BadParameter("--send-tls needs --send-to and the three files of --tls-...")
    with _installed():
        from medimg_edge.dicom.node.sender import Peer, Sender
        from medimg_edge.dicom.node.service import Service
        from medimg_edge.dicom.node.settings import Settings
        from medimg_edge.dicom.node.spool import Spool
        from medimg_edge.dicom.node.tls import client_context

        settings = Settings(port=port, host=host, aet=aet, allow=tuple(allow or ()), tls=tls)
        archive = Peer.parse(send_to) if send_to else None
        secured = client_context(tls) if tls and send_tls else None
        opened = _trusted(bundle, trusted, allow_unsigned)
        classifier = _classifier(opened, artifact, profile, force, risk)
        spool = Spool(
            out,
            model=_model(classifier),
            queue=queue,
            reserve_bytes=reserve * 10**6,
            send=archive is not None,
            keep_images=keep_images,
            keep_results=keep_results,
        )
        sender = archive and Sender(
            spool.outbox, archive, calling=settings.aet, tls=secured, log=_log
        )
        service = Service(
            settings,
            spool,
            _answer(classifier, kinds, spool.pseudonyms),
            report=_report,
            log=_log,
            sender=sender,
        )
    if archive is None and (left := len(spool.outbox.pending())):
        output.warn(f"{left} results wait for an archive: give --send-to to send them.")
    if tls is None and not is_loopback(host):
        output.warn(
            "connections are neither encrypted nor authenticated: whoever reaches this address can "
            "send, and read along. Give --tls-cert, --tls-key and --tls-ca."
        )
    with _asked_to_end() as asked:
        service.start()
        at, number = service.address
        _say(f"{settings.aet} listens on {at}, port {number}; {len(spool.waiting())} images wait.")
        try:
            end = _end(asked, service)
            output.note("Ending: what is not done yet waits for the next start.")
        finally:
            service.stop()
    if end == signal.SIGINT:
        raise typer.Exit(INTERRUPTED)


def _kinds(text: str) -> frozenset[str]:
    kinds = frozenset(each.strip() for each in text.split(","))
    if unknown := sorted(kinds - set(_KINDS)):
        raise typer.BadParameter(
            f"{unknown[0]!r} is no kind of result; there are {', '.join(_KINDS)}.",
            param_hint="--results",
        )
    return kinds


def _tls_files(cert: Path | None, key: Path | None, ca: Path | None) -> "TlsFiles | None":
    if cert is None and key is None and ca is None:
        return None
    if cert is None or key is None or ca is None:
        raise typer.BadParameter("TLS needs --tls-cert, --tls-key and --tls-ca, all three.")
    from medimg_edge.dicom.node.settings import TlsFiles

    return TlsFiles(cert, key, ca)


@contextmanager
def _installed() -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        raise ExtraMissing(
            f"`listen` needs {error.name}, which is not installed: pip install 'medimg-edge[dicom]'"
        ) from error


def _trusted(bundle: Path, trusted: Path | None, allow_unsigned: bool) -> "Bundle":
    from medimg_edge.bundle import Bundle
    from medimg_edge.trust import Trust, require

    opened = Bundle.open(bundle)
    standing = require(opened, Trust.load(trusted), allow_unsigned=allow_unsigned)
    if standing.status != "trusted":
        output.warn(f"{standing.sentence} It answers because of --allow-unsigned.")
    return opened


def _classifier(
    opened: "Bundle", artifact: str, profile: str, force: bool, risk: float | None
) -> "Classifier":
    from medimg_edge import device_profile
    from medimg_edge.classifier import Classifier

    return Classifier(
        opened,
        artifact=artifact,
        profile=None if profile == "none" else profile,
        device=device_profile.find(opened, output.warn) if artifact == "auto" else None,
        force=force,
        risk=risk,
    )


def _model(classifier: "Classifier") -> str:
    """The bundle, and the site profile where there is one, as far as answers are told apart."""
    return classifier.bundle.hash[:16] + (classifier.profile_hash or "")[:16]


def _answer(classifier: "Classifier", kinds: Collection[str], pseudonyms: "Pseudonyms") -> "Answer":
    """What answers an image's file."""
    from medimg_edge.dicom.answer import received
    from medimg_edge.dicom.node.service import Answered

    if "sr" in kinds:
        import medimg_edge.dicom.answer.report  # noqa: F401 - now: it takes long, or is missing

    def answer(image: Path, name: str) -> "Answered":
        try:
            data = image.read_bytes()
        except FileNotFoundError as error:
            raise InputMissing("The received image is no longer in the inbox.") from error
        found = received.answer(
            classifier, data, identifier=name, kinds=kinds, name_of=pseudonyms.of
        )
        return Answered(*found)

    return answer


@contextmanager
def _asked_to_end() -> Iterator[SimpleQueue[int]]:
    """The signals that end a service, as they come. A signal may interrupt anything but this."""
    asked: SimpleQueue[int] = SimpleQueue()

    def ask(number: int, frame: FrameType | None) -> None:
        asked.put(number)

    before = {each: signal.signal(each, ask) for each in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(asked: SimpleQueue[int], service: "Service") -> int:
    """The signal that ends the service. Raises NodeError where part of it has ended before."""
    while True:
        with suppress(Empty):
            return asked.get(timeout=LOOKS_SECONDS)
        service.require_alive()


def _report(record: "Record") -> None:
    """One line for an answered image, or frame of it: whose it is, the archive knows."""
    frame = f" frame {record.frame}" if record.frame else ""
    if record.status != "ok":
        _say(f"{record.input}{frame}  {record.status} [{record.code}]")
    else:
        found = (
            f"{each.label} {each.probability:.3f}  {each.decision}" for each in record.findings
        )
        _say(f"{record.input}{frame}  {'  '.join(found)}")


def _quietly(say: Callable[[str], None]) -> Callable[[str], None]:
    """A full disk, or a reader that went away, must not end what answers and sends."""

    def quiet(line: str) -> None:
        with suppress(OSError, WriteError):
            say(line)

    return quiet


_say = _quietly(lambda line: typer.echo(line))
_log = _quietly(output.note)
