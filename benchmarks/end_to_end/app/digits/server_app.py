"""A ServerApp: Flower's FedAvg, a quarter of the nodes in every round."""

import torch
from flwr.app import ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from digits.model import build

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train; no node evaluates."""
    torch.manual_seed(1)
    FedAvg(fraction_train=0.25, fraction_evaluate=0.0).start(
        grid=grid,
        initial_arrays=ArrayRecord(build(str(context.run_config["model"])).state_dict()),
        num_rounds=int(context.run_config["num-server-rounds"]),
    )
