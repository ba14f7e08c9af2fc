"""Models that begin trained: a warm start, a folder of Hugging Face's, and adapters for both.

    y = W x + s B A x,      W, A at rest,  B trained and sent,  s = 2           (LoRA)

LoRA: Hu et al., arXiv 2106.09685. A mean of B A over nodes is not the product of the means; with A
as it was drawn it is, for B A is linear in B: FFA-LoRA, Sun et al., "Improving LoRA in
privacy-preserving federated learning", ICLR 2024, arXiv 2403.12313. Nor does it matter then how old
an update is: a change of B means the same change of B A whatever B it is added to.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from fedagent.errors import ConfigurationError, DataUnavailableError, require
from fedagent.tasks import Package

TRAVELS = ("*.lora_B.*",)
"""Patterns of the names of what is trained of a model with adapters."""
PEFT = Package("peft", "What puts adapters into a model", "fedagent[llm]", "set app.adapters=none")
TRANSFORMERS = Package(
    "transformers", "What reads a folder of Hugging Face's", "fedagent[llm]", "take app.model=gru"
)
_SCALE = 2


def warm_start(model: nn.Module, path: str) -> None:
    """Copy the file that another run wrote, its model.safetensors, into a model.

    Raises
    ------
    DataUnavailableError
        If there is no such file; it must be on every node as well.
    ConfigurationError
        If it holds another model.
    """
    file = Path(path)
    if not file.is_file():
        raise DataUnavailableError(
            f"{file.resolve()} is no file: app.base must name a model.safetensors that a run wrote "
            "(fedagent run experiment=language_warm_start), on the server and on every node."
        )
    try:
        model.load_state_dict(load_file(file))
    except (RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ConfigurationError(
            f"{file.resolve()} does not hold this model ({reason}): set app.model, app.hidden, "
            "app.num_layers, app.window and app.rows as in the run that wrote it."
        ) from error


def add_adapters(model: nn.Module, rank: int) -> None:
    """Give every dense layer but the last an adapter; all else is put at rest.

    A is drawn from the global torch seed and B is 0: the model still says the same.

    Parameters
    ----------
    rank : rows of A and columns of B, >= 1.

    Raises
    ------
    ConfigurationError
        If the model has no such layer.
    DataUnavailableError
        If peft is missing.
    """
    peft = PEFT.module("peft")
    # Conv1D is what GPT-2 calls a dense layer.
    targets = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"
        if not name.endswith("head")
    ]
    require(
        targets,
        f"adapters=lora: a {type(model).__name__} has no dense layers for it but the last; take "
        "app.model=transformer, or a folder with a model that has some.",
    )
    config = peft.LoraConfig(
        r=rank,
        lora_alpha=_SCALE * rank,
        target_modules=targets,
        fan_in_fan_out=any(type(module).__name__ == "Conv1D" for module in model.modules()),
    )
    peft.inject_adapter_in_model(config, model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_B" in name)


class HuggingFace(nn.Module):
    """A causal language model out of a folder; nothing is downloaded.

    Parameters
    ----------
    folder : with config.json, weights and tokenizer, as ``save_pretrained`` writes them.
    """

    def __init__(self, folder: str) -> None:
        super().__init__()
        transformers = TRANSFORMERS.module("transformers")
        try:
            self.network = transformers.AutoModelForCausalLM.from_pretrained(
                folder, local_files_only=True, dtype=torch.float32
            )
        except (OSError, ValueError) as error:
            raise _unreadable(folder, "model", error) from error

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        """Return (B, T, V) logits of the token after each of (B, T)."""
        logits: torch.Tensor = self.network(input_ids=text, use_cache=False).logits
        return logits


class Tokens:
    """The tokenizer of such a folder, as an `Alphabet`."""

    def __init__(self, folder: str) -> None:
        transformers = TRANSFORMERS.module("transformers")
        try:
            self._tokenizer = transformers.AutoTokenizer.from_pretrained(
                folder, local_files_only=True
            )
        except (OSError, ValueError) as error:
            raise _unreadable(folder, "tokenizer", error) from error
        self.size = len(self._tokenizer)

    def encode(self, text: str) -> torch.Tensor:
        """Return (T,) int64."""
        numbers = self._tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return torch.tensor(numbers, dtype=torch.int64)

    def decode(self, numbers: Sequence[int]) -> str:
        """Return the text."""
        return str(self._tokenizer.decode(list(numbers)))


def _unreadable(folder: str, part: str, error: Exception) -> DataUnavailableError:
    return DataUnavailableError(
        f"{Path(folder).resolve()} holds no {part} that transformers can read ({error}): app.model "
        "must name a folder to which save_pretrained wrote a causal language model and its "
        "tokenizer."
    )
