"""A ClientApp in plain Flower: it returns what it got, changed a little or trained on noise."""

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import ClientAppCallable


def codec(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """Decode and encode, if a codec is wanted; without one the app knows no fedagent."""
    if not context.run_config["codec"]:
        return call_next(message, context)
    from fedagent.client.mods import codec_mod  # noqa: PLC0415

    return codec_mod(message, context, call_next)


app = ClientApp(mods=[codec])


@app.train()
def train(message: Message, context: Context) -> Message:
    """Answer with the arrays, trained for 8 steps of 32 images if work=cnn, or larger if resnet."""
    arrays = message.content["arrays"]
    if context.run_config["work"] == "cnn":
        arrays = _trained(arrays)
    if str(context.run_config["work"]).startswith("resnet"):
        arrays = ArrayRecord({k: Array(_larger(a.numpy())) for k, a in arrays.items()})
    metrics = MetricRecord({"num-examples": 1})
    return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)


def _larger(array: np.ndarray) -> np.ndarray:
    return array * np.float32(1.001) if array.dtype.kind == "f" else array


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
