"""Whether an image is of the kind that a model reads, by what its DICOM header says.

Another modality, region of the body or view is refused. Where the header says nothing, or a word
that is not known, the image is answered with a warning: many headers do.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from medimg_edge.errors import OwnResult, Rejected, WrongBodyPart, WrongModality, WrongView
from medimg_edge.image import Header, Image
from medimg_edge.manifest import Manifest
from medimg_edge.terms import MODALITIES, OBJECTS, OTHER, VIEWS, regions, term

Warnings = tuple[str, ...]


class Rule(NamedTuple):
    """One word of the header, and what the model reads.

    known: whether it is known what the word means. other: whether that is something else.
    """

    what: str
    word: str | None
    accepted: tuple[str, ...]
    known: bool
    other: bool
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
        if not rule.accepted or rule.word in {term(each) for each in rule.accepted}:
            continue
        if rule.word is None:
            yield f"The header does not say the {rule.what}; {reads}."
        elif not rule.known:
            yield f"The header's {rule.what} is said in a word that is not known here; {reads}."
        elif not rule.other:
            meaning = ", which means other" if rule.word == OTHER else ""
            yield f"The header's {rule.what} is {rule.word}{meaning}; {reads}."
        elif force:
            yield f"Answered by force: the header's {rule.what} is {rule.word}; {reads}."
        else:
            raise rule.error(
                f"The header's {rule.what} is {rule.word}; {reads}. Give it such an image, or, "
                "where the header is known to be wrong, answer by force: --force."
            )


def _rules(header: Header, manifest: Manifest) -> tuple[Rule, ...]:
    modality, body_part, view = (
        each and term(each) for each in (header.modality, header.body_part, header.view)
    )
    here = frozenset().union(*map(regions, manifest.body_part))
    there = regions(body_part or "")
    return (
        Rule(
            "modality",
            modality,
            manifest.modality,
            modality in MODALITIES | OBJECTS | {OTHER},
            modality != OTHER,
            WrongModality,
        ),
        Rule(
            "body part",
            body_part,
            manifest.body_part,
            bool(there),
            bool(here) and not here & there,
            WrongBodyPart,
        ),
        Rule("view", view, manifest.view, view in VIEWS, True, WrongView),
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
