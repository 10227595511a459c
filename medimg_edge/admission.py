"""Whether an image is of the kind that a model reads, by what its DICOM header says.

Another modality, region of the body or view is refused. Where the header says nothing, or a word
that the Standard does not have, the image is answered with a warning: many headers do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from medimg_edge.errors import OwnResult, Rejected, WrongBodyPart, WrongModality, WrongView
from medimg_edge.image import Header, Image
from medimg_edge.manifest import Manifest
from medimg_edge.terms import MODALITIES, VIEWS, regions

Warnings = tuple[str, ...]


class Rule(NamedTuple):
    """One word of the header, and what the model reads.

    other: whether the word is known to mean something else.
    """

    what: str
    word: str | None
    accepted: tuple[str, ...]
    known: bool
    other: Callable[[str], bool]
    error: type[Rejected]


def admit(image: Image, manifest: Manifest, *, force: bool = False) -> Warnings:
    """What is to be said with the answer; of an image without a DICOM header nothing.

    force: answer the wrong kind, too, with a warning that says so.

    Raises WrongModality, WrongBodyPart, WrongView, OwnResult.
    """
    if image.header is None:
        return ()
    if image.header.ours:
        raise OwnResult(
            "The image is a picture that medimg-edge made of an answer. Give it the image that was "
            "answered, and let the archive not send it our series."
        )
    return (*_of_kind(image.header, manifest, force), *_of_history(image.header))


def _of_kind(header: Header, manifest: Manifest, force: bool) -> Iterator[str]:
    for rule in _rules(header, manifest):
        reads = f"{manifest.name} reads {', '.join(rule.accepted)}"
        if not rule.accepted or rule.word in rule.accepted:
            continue
        if rule.word is None:
            yield f"The header does not say the {rule.what}; {reads}."
        elif not rule.known:
            yield f"The header's {rule.what} is no term of the Standard; {reads}."
        elif not rule.other(rule.word):
            yield f"The header's {rule.what} is {rule.word}; {reads}."
        elif force:
            yield f"Answered by force: the header's {rule.what} is {rule.word}; {reads}."
        else:
            raise rule.error(
                f"The header's {rule.what} is {rule.word}; {reads}. Give it such an image, or, "
                "where the header is known to be wrong, answer by force: --force."
            )


def _rules(header: Header, manifest: Manifest) -> tuple[Rule, ...]:
    body_part, view = header.body_part, header.view
    here = frozenset().union(*(regions(each) for each in manifest.body_part))
    return (
        Rule(
            "modality",
            header.modality,
            manifest.modality,
            header.modality in MODALITIES,
            lambda word: True,
            WrongModality,
        ),
        Rule(
            "body part",
            body_part,
            manifest.body_part,
            body_part is not None and bool(regions(body_part)),
            lambda word: bool(here) and not here & regions(word),
            WrongBodyPart,
        ),
        Rule("view", view, manifest.view, view in VIEWS, lambda word: True, WrongView),
    )


def _of_history(header: Header) -> Iterator[str]:
    if header.burned_in:
        yield "The header says that text is burned into the pixels, which the model may read, too."
    if header.lossy:
        yield "The image has been compressed with loss."
    if header.relationship == "LIN":
        yield (
            "The pixels are linear to the beam's intensity (LIN), as in raw images that are not "
            "for presentation."
        )
