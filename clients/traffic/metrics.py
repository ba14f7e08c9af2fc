"""How far off forecasts are."""

import torch

from clients.traffic.windows import HORIZONS, Examples, Series
from fedagent.errors import imported
from fedagent.tasks import Metrics


def scores(series: Series, forecasts: torch.Tensor, batch: Examples) -> Metrics:
    """Return MAE in counts and R^2 of (B, H) forecasts of z, over the known targets."""
    # Imported here because it takes seconds, which a node that only trains need not spend.
    torchmetrics = imported("torchmetrics.functional", "fedagent[traffic]", "Scoring forecasts")
    found = {}
    for number, horizon in enumerate(HORIZONS):
        known = batch.is_known[:, number] > 0
        pair = forecasts[known, number].double(), batch.targets[known, number].double()
        found[f"mae-{horizon}h"] = float(torchmetrics.mean_absolute_error(*pair)) * series.deviation
        found[f"r2-{horizon}h"] = float(torchmetrics.r2_score(*pair))
    mae = sum(found[f"mae-{horizon}h"] for horizon in HORIZONS) / len(HORIZONS)
    return {"mae": mae, **found, "num-examples": float(len(forecasts))}
