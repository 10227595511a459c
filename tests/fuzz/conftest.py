"""The marker of what mutates files for as long as FUZZ_SECONDS says."""

import pytest


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "fuzz: mutates files; for FUZZ_SECONDS, or a few")
