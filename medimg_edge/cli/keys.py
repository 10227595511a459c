"""The commands about who vouches for a bundle: keys, sign."""

from pathlib import Path
from typing import Annotated

import typer

from medimg_edge.cli import output

keys = typer.Typer(
    name="keys",
    help="Keys that bundles are signed with, and which of them are trusted here.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

TrustedOption = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="The folder of trusted keys. Default: trusted, in the state folder.",
        show_default=False,
    ),
]
PassphraseOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="Its first line is the key's passphrase.", show_default=False
    ),
]


@keys.command()
def new(
    name: Annotated[str, typer.Argument(help="What the files are called.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where they are written.")] = Path("."),
    passphrase_file: PassphraseOption = None,
) -> None:
    """Make a key pair: NAME signs and stays secret, NAME.pub is what others trust.

    The private key is an Ed25519 key as OpenSSH writes it, readable by its owner alone; with a
    passphrase it is encrypted (PKCS #8). Keep it off machines that answer, and out of backups that
    others read.

    Examples:

    medimg-edge keys new our-hospital --out ~/keys

    medimg-edge keys new our-hospital --passphrase-file passphrase
    """
    from medimg_edge import keys as files

    private, public = files.new(name, out, _passphrase(passphrase_file))
    typer.echo(f"{private}  private: it signs, and must stay secret")
    typer.echo(f"{private}.pub  public: give it to those who are to trust it")
    typer.echo(public.fingerprint)


@keys.command("list")
def list_keys(trusted: TrustedOption = None) -> None:
    """Show the keys that are known here.

    Example: medimg-edge keys list
    """
    from medimg_edge import keys as files

    rows = [(each.name, each.fingerprint, each.status) for each in files.listed(trusted)]
    if not rows:
        typer.echo("No key is trusted here. `medimg-edge keys trust FILE.pub` trusts one.")
        return
    typer.echo(output.table(rows, ("name", "fingerprint", "")))


@keys.command()
def trust(
    file: Annotated[Path, typer.Argument(metavar="FILE.pub", help="The public key.")],
    name: Annotated[
        str | None, typer.Option(help="Whose it is.", show_default="the file's name")
    ] = None,
    trusted: TrustedOption = None,
) -> None:
    """Trust a public key: bundles that it signed may be installed and serve.

    Compare the fingerprint with what the owner of the key tells by another way, such as by phone.

    Example: medimg-edge keys trust stick/our-hospital.pub
    """
    from medimg_edge import keys as files

    path, key = files.trust_key(file, name, trusted)
    typer.echo(f"{path.stem} is trusted here: {key.fingerprint}")


@keys.command()
def revoke(
    key: Annotated[str, typer.Argument(metavar="FILE.pub|FINGERPRINT")],
    trusted: TrustedOption = None,
) -> None:
    """Withdraw a key: what it signed is refused from now on, also that of a release.

    Examples:

    medimg-edge keys revoke our-hospital.pub

    medimg-edge keys revoke SHA256:AbC...
    """
    from medimg_edge import keys as files

    typer.echo(f"{files.revoke(key, trusted)} is withdrawn: nothing that it signed is accepted.")


def sign(
    bundle: Annotated[Path, typer.Argument(help="The bundle's folder.")],
    key: Annotated[Path, typer.Option(metavar="FILE", help="The private key.")],
    name: Annotated[
        str | None,
        typer.Option(help="What the signature is called.", show_default="the key's file name"),
    ] = None,
    passphrase_file: PassphraseOption = None,
) -> None:
    """Sign a bundle: vouch that its every file is what you made.

    Writes signatures/NAME.sig, which `ssh-keygen -Y verify` checks, too. Every file is hashed
    first. A bundle may have several signatures.

    Example: medimg-edge sign our-bundle --key ~/keys/our-hospital
    """
    from medimg_edge import keys as files

    path, public = files.sign_bundle(bundle, key, name, _passphrase(passphrase_file))
    typer.echo(f"{path}  by {public.fingerprint}")


def _passphrase(file: Path | None) -> bytes | None:
    if file is None:
        return None
    from medimg_edge.errors import KeyInvalid

    try:
        return file.read_bytes().split(b"\n", 1)[0].rstrip(b"\r")
    except OSError as error:
        raise KeyInvalid(f"{file} cannot be read: {error.strerror}.") from error
