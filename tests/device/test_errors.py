"""The tree of errors, its codes, and its picture."""

import re

from medimg_edge import errors


def every(kind: type[errors.MedimgEdgeError]) -> list[type[errors.MedimgEdgeError]]:
    return [kind, *(each for child in kind.__subclasses__() for each in every(child))]


def test_codes_are_unique():
    codes = [kind.code for kind in every(errors.MedimgEdgeError)]
    assert len(codes) == len(set(codes))
    assert all(re.fullmatch("[a-z0-9]+(-[a-z0-9]+)*", code) for code in codes)


def test_the_picture_is_the_tree():
    drawn: dict[str, tuple[str | None, str]] = {}
    above = "MedimgEdgeError"
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"    (│   )?[├└]── (\w+)(?: +(\S+))?", line)
        if found:
            nested, name, code = found.groups()
            drawn[name] = (code, above if nested else "MedimgEdgeError")
            above = above if nested else name
    kinds = every(errors.MedimgEdgeError)[1:]
    assert set(drawn) == {kind.__name__ for kind in kinds}
    for kind in kinds:
        code, parent = drawn[kind.__name__]
        assert kind.__bases__[0].__name__ == parent
        assert kind.__subclasses__() or code == kind.code


def test_the_message_is_the_text():
    assert errors.Blank("nothing to read").message == "nothing to read"
