"""Browser sessions: what a page shows instead of the token, once somebody has signed in."""

from __future__ import annotations

import secrets
import time

COOKIE = "medimg_session"
SECONDS = 12 * 3600
MOST = 100
"""Sessions at a time; the oldest ends for a new one."""


class Sessions:
    """Who has signed in. They are in memory alone, and end with the process."""

    def __init__(self) -> None:
        self._ends: dict[str, float] = {}

    def create(self) -> str:
        """The id of a new session: a secret of 43 characters of a URL."""
        while len(self._ends) >= MOST:
            del self._ends[next(iter(self._ends))]
        created = secrets.token_urlsafe()
        self._ends[created] = time.monotonic() + SECONDS
        return created

    def valid(self, session: str | None) -> bool:
        """Whether there is such a session now."""
        # Ids are found by their hash: how long that takes tells nothing of those that are valid.
        return session is not None and self._ends.get(session, 0.0) > time.monotonic()

    def end(self, session: str | None) -> None:
        """Sign out; again is harmless."""
        if session is not None:
            self._ends.pop(session, None)
