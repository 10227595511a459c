"""Whether there was too little memory: libraries say it in words, and readers pass them on."""

from __future__ import annotations

_WORDS = (
    "insufficient memory",
    "bad_alloc",
    "bad allocation",
    "out of memory",
    "cannot allocate memory",
)


def is_of_memory(error: BaseException | None) -> bool:
    """Whether an error, or one that it came from, is a lack of memory."""
    while error is not None:
        if isinstance(error, MemoryError) or any(words in str(error).lower() for words in _WORDS):
            return True
        error = error.__cause__ or error.__context__
    return False
