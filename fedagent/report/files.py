"""Files that are never half written, and one clear error when they cannot be written at all."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from fedagent.errors import OutputError
from fedagent.journal.durable import flush, writing


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` that takes its place when the block succeeds.

    A reader, or a run that is killed, sees the old file or the new one, nothing in between.

    Raises
    ------
    OutputError
        If the disk does not take the file.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def append_line(path: Path, line: str) -> None:
    """Add a line to a file, as `append_lines` does."""
    append_lines(path, [line])


def append_lines(path: Path, lines: Iterable[str]) -> None:
    """Add lines to a file, all of them whole or none; nothing stays in a buffer.

    Raises
    ------
    OutputError
        If the disk does not take the lines.
    """
    with writing(path), path.open("ab", buffering=0) as stream:
        whole, left = stream.tell(), "".join(f"{line}\n" for line in lines).encode()
        try:
            while left:  # a disk that fills up takes a part, and refuses the next
                left = left[stream.write(left) :]
        except OSError:
            stream.truncate(whole)
            raise


def create(path: Path) -> bool:
    """Create an empty file, and say whether it was this call that did; of several, one does.

    Raises
    ------
    OutputError
        If it can neither be created nor is there.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            path.touch(exist_ok=False)
        except FileExistsError:
            return False
        return True


def flushed(path: Path) -> int:
    """Have the disk take what is written; return how many bytes these are, 0 without a file.

    Raises
    ------
    OutputError
        If the disk does not take them.
    """
    if not path.exists():
        return 0
    with writing(path):
        flush(path)
    return path.stat().st_size


def cut(path: Path, num_bytes: int) -> None:
    """Forget what stands in a file after its first bytes.

    Raises
    ------
    OutputError
        If the file is shorter than that, or cannot be written.
    """
    there = path.stat().st_size if path.exists() else 0
    if there < num_bytes:
        raise OutputError(
            f"{path} has {there} bytes, and had {num_bytes} when the run was saved: it was changed "
            "since. Put it back as it was, or start the run anew."
        )
    with writing(path), path.open("ab") as file:
        file.truncate(num_bytes)
