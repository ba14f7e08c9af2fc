"""A ClientApp in plain Flower: it returns what it got, or trains a CNN on random images."""

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """Answer with the arrays, trained for 8 steps of 32 images if work=cnn."""
    arrays = message.content["arrays"]
    if context.run_config["work"] == "cnn":
        arrays = _trained(arrays)
    metrics = MetricRecord({"num-examples": 1})
    return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)


def _trained(arrays: ArrayRecord) -> ArrayRecord:
    import torch  # noqa: PLC0415  (an app that does nothing should not pay for it)

    from fleet.model import build  # noqa: PLC0415

    model = build()
    model.load_state_dict(arrays.to_torch_state_dict())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    generator = np.random.default_rng()
    for _ in range(8):
        images = torch.from_numpy(generator.random((32, 1, 28, 28), np.float32))
        labels = torch.from_numpy(generator.integers(0, 10, 32))
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
    return ArrayRecord(model.state_dict())
