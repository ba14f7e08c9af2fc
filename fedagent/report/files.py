"""Files that are never half written, and one clear error when they cannot be written at all."""

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from fedagent.errors import OutputError
from fedagent.formatting import size


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


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Make one `OutputError` of whatever keeps the block from writing `path`."""
    try:
        yield
    except OutputError:
        raise
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise OutputError(
            f"{path} cannot be written: {reason} ({_room(path)}); make room or get permission "
            "there, or choose another folder."
        ) from None


def _room(path: Path) -> str:
    there = next(folder for folder in path.absolute().parents if folder.is_dir())
    return f"{size(shutil.disk_usage(there).free)} free in {there}"
