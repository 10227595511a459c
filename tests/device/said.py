"""What a command said, but for the warning that the unsigned bundles of most tests get."""

import re

_UNSIGNED = re.compile(r"warning: \S+ is not signed: nobody vouches for it\.\r?\n")


def beside_trust(said: str) -> str:
    """Without that warning; test_trust has it."""
    return _UNSIGNED.sub("", said)
