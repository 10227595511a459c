"""Options that several commands have, with the same words."""

from pathlib import Path
from typing import Annotated

import typer

ProfileOption = Annotated[
    str,
    typer.Option(
        envvar="MEDIMG_EDGE_PROFILE",
        help="A site profile; auto is the one beside the bundle, none is none.",
    ),
]
ForceOption = Annotated[
    bool,
    typer.Option("--force", help="Answer images that the model would turn away, too; noted."),
]
RiskOption = Annotated[
    float | None,
    typer.Option(
        metavar="R",
        help="Refer what cannot be answered with that risk of missing the true label: .01, "
        ".02, .05, .1 or .2.",
    ),
]
TrustedOption = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="The folder of trusted keys, and of those that were withdrawn.",
        show_default="trusted in the state folder",
    ),
]
AllowUnsignedOption = Annotated[
    bool,
    typer.Option(
        "--allow-unsigned",
        help="Also a bundle that nobody signed, or that an unknown key signed.",
    ),
]
