"""What native libraries write is held back, and nothing of it lost."""

import os
import threading

from medimg_edge import native_stderr


def test_what_is_written_in_the_block_is_returned(capfd):
    os.write(2, b"before\n")
    with native_stderr.captured() as said:
        os.write(2, b"Corrupt JPEG data\nagain\xff\n")
        assert said == []
    os.write(2, b"after\n")
    assert said == ["Corrupt JPEG data", "again\ufffd"]
    assert capfd.readouterr().err == "before\nafter\n"


def test_threads_take_turns_and_standard_error_stays(capfd):
    def work(name: str) -> None:
        for at in range(50):
            with native_stderr.captured() as said:
                os.write(2, f"{name}{at}\n".encode())
            found.append(said == [f"{name}{at}"])

    found: list[bool] = []
    threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert found == [True] * 200
    os.write(2, b"still there\n")
    assert capfd.readouterr().err == "still there\n"


def test_an_error_in_the_block_gives_standard_error_back(capfd):
    try:
        with native_stderr.captured():
            raise ZeroDivisionError
    except ZeroDivisionError:
        os.write(2, b"back\n")
    assert capfd.readouterr().err == "back\n"
