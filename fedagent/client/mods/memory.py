"""What mods keep from job to job: in the Context, or in files beside it.

Flower takes a Context from process to process with every job of a real node, which with a model
in it costs more than the job's messages. ``fedagent node`` therefore names a folder, and what mods
keep is there. It lasts as long as a SuperNode's Contexts do, which are in its memory: until the
SuperNode ends.
"""

import hashlib
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, Context

from fedagent import keys
from fedagent.arrays import NDArray
from fedagent.wire.records import from_record, to_record

Arrays = dict[str, NDArray]

_WEEK_S = 7 * 86_400.0


def keep(context: Context, name: str, record: ArrayRecord) -> None:
    """Keep arrays under a name, in place of what was there."""
    if (folder := _folder()) is None:
        context.state[name] = record
        return
    for old in folder.glob("*.npy"):  # a run that has ended tells nobody
        with suppress(FileNotFoundError):  # another process was first
            if time.time() - old.stat().st_mtime > _WEEK_S:
                old.unlink()
    path = _path(folder, context, name)
    draft = path.with_suffix(f".{os.getpid()}")
    with draft.open("wb") as file:  # one after the other, as they are: npz adds checksums, slowly
        np.save(file, np.array(list(record), str))
        file.writelines(array.data for array in record.values())
    draft.replace(path)
    context.state[name] = to_record({})


def kept(context: Context, name: str) -> Arrays | None:
    """Return what is kept under a name; None if nothing is."""
    if name not in context.state:
        return None
    if (folder := _folder()) is None:
        return from_record(context.state.array_records[name])
    try:
        with _path(folder, context, name).open("rb") as file:
            return {array: np.load(file) for array in np.load(file).tolist()}
    except FileNotFoundError:
        return None


def recall(context: Context, prefix: str, names: Sequence[str]) -> list[Arrays]:
    """Return what the node keeps under `prefix` and these names, and forget all else under it.

    Names under which nothing is kept are left out.
    """
    wanted = [prefix + name for name in names]
    folder = _folder()
    for key in [k for k in context.state if k.startswith(prefix) and k not in wanted]:
        del context.state[key]
        if folder is not None:
            _path(folder, context, key).unlink(missing_ok=True)
    return [arrays for key in wanted if (arrays := kept(context, key)) is not None]


def _folder() -> Path | None:
    named = os.environ.get(keys.NODE_FOLDER)
    return Path(named) if named else None


def _path(folder: Path, context: Context, name: str) -> Path:
    """Return a name's file; the name may be a proxy's word, and so is no part of a path."""
    own = f"{context.run_id} {context.node_id} {name}"
    return folder / f"{hashlib.sha256(own.encode()).hexdigest()}.npy"
