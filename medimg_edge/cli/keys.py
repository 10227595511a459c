"""The commands about who vouches for a bundle: keys, sign."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from medimg_edge.cli import output
from medimg_edge.cli.options import TrustedOption

keys = typer.Typer(
    name="keys",
    help="Keys that bundles are signed with, and which of them are trusted here.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

PassphraseOption = Annotated[
    bool, typer.Option("--passphrase", help="Ask for the key's passphrase, on this terminal.")
]
PassphraseFileOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="Its first line is the key's passphrase.", show_default=False
    ),
]
_MAX_FILE_BYTES = 4096


@keys.command()
def new(
    name: Annotated[str, typer.Argument(help="What the files are called.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where they are written.")] = Path("."),
    passphrase: PassphraseOption = False,
    passphrase_file: PassphraseFileOption = None,
) -> None:
    """Make a key pair: NAME signs and stays secret, NAME.pub is what others trust.

    The private key is an Ed25519 key as OpenSSH writes it, readable by its owner alone; with a
    passphrase it is encrypted, which needs the package bcrypt. Keep it off machines that answer,
    and out of backups that others read.

    Examples:

    medimg-edge keys new our-hospital --out ~/keys --passphrase

    medimg-edge keys new our-hospital --passphrase-file passphrase
    """
    from medimg_edge import keys as files

    word = _passphrase(passphrase, passphrase_file, twice=True)
    private, public = files.new(name, out, word)
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
    passphrase: PassphraseOption = False,
    passphrase_file: PassphraseFileOption = None,
) -> None:
    """Sign a bundle: vouch that its every file is what you made.

    Writes signatures/NAME.sig, which `ssh-keygen -Y verify` checks, too. Every file is hashed
    first. A bundle may have several signatures.

    Examples:

    medimg-edge sign our-bundle --key ~/keys/our-hospital --passphrase

    medimg-edge sign our-bundle --key ~/keys/our-hospital --name radiology
    """
    from medimg_edge import keys as files

    word = _passphrase(passphrase, passphrase_file)
    path, public = files.sign_bundle(bundle, key, name, word)
    typer.echo(f"{path}  by {public.fingerprint}")


def _passphrase(asked: bool, file: Path | None, twice: bool = False) -> bytes | None:
    """From a terminal or the first line of a file; None where neither was named."""
    from medimg_edge.errors import KeyInvalid

    if asked and file is not None:
        raise typer.BadParameter("--passphrase and --passphrase-file exclude each other.")
    if asked:
        if not sys.stdin.isatty():
            raise KeyInvalid("There is no terminal to ask on: give --passphrase-file FILE.")
        word = typer.prompt("Passphrase", hide_input=True, confirmation_prompt=twice, err=True)
        return word.encode()
    if file is None:
        return None
    try:
        with file.open("rb") as opened:
            return opened.readline(_MAX_FILE_BYTES).rstrip(b"\r\n")
    except OSError as error:
        raise KeyInvalid(f"{file} cannot be read: {error.strerror}.") from error
