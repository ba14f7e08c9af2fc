"""Where a node computes."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from fedagent.errors import ConfigurationError


def resolve_device(name: str = "auto") -> torch.device:
    """Return the device called `name`, if this machine has it.

    Parameters
    ----------
    name : "auto" (CUDA, else MPS, else the CPU), "cpu", "cuda", "cuda:1", "mps", or another
        device that PyTorch knows.

    Raises
    ------
    ConfigurationError
        If PyTorch does not know the device, or this machine does not have it.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        # Neither the name nor torch.cuda.is_available says whether cuda:7 is there; using it does.
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigurationError(
            f"device={name!r} cannot be used on this machine ({reason}); choose device=auto or "
            "device=cpu."
        ) from error
    return device


def to_device(batch: Any, device: torch.device) -> Any:
    """Return `batch` with every tensor in it on `device`; tuples, lists and mappings are entered.

    What is no tensor stays as it is.
    """
    if isinstance(batch, torch.Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, Mapping):
        return {key: to_device(value, device) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):  # a namedtuple
        return type(batch)(*(to_device(value, device) for value in batch))
    if isinstance(batch, tuple | list):
        return type(batch)(to_device(value, device) for value in batch)
    return batch


def tensors_of(batch: Any) -> Iterator[torch.Tensor]:
    """Yield every tensor in `batch`; tuples, lists and mappings are entered."""
    if isinstance(batch, torch.Tensor):
        yield batch
    elif isinstance(batch, tuple | list | Mapping):
        for value in batch.values() if isinstance(batch, Mapping) else batch:
            yield from tensors_of(value)
