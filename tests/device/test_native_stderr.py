"""What native libraries write is not shown, and standard error comes back."""

import os
import threading

import pytest

from medimg_edge import native_stderr


def test_what_is_written_in_the_block_is_not_shown(capfd):
    os.write(2, b"before\n")
    with native_stderr.turned_away():
        os.write(2, b"chat\n")
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "before\nafter\n"


def test_threads_take_turns_and_standard_error_stays(capfd):
    def work() -> None:
        for _ in range(50):
            with native_stderr.turned_away():
                os.write(2, b"chat\n")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    os.write(2, b"still there\n")
    assert capfd.readouterr().err == "still there\n"


def test_an_error_in_the_block_gives_standard_error_back(capfd):
    with pytest.raises(ZeroDivisionError), native_stderr.turned_away():
        raise ZeroDivisionError
    os.write(2, b"back\n")
    assert capfd.readouterr().err == "back\n"
