"""How far off forecasts are."""

from statistics import fmean

import torch

from clients.traffic.windows import HORIZONS, Examples, Series
from fedagent.errors import imported
from fedagent.tasks import Metrics


def scores(series: Series, forecasts: torch.Tensor, batch: Examples) -> Metrics:
    """Return MAE in counts and R^2 of (B, H) forecasts of z, over the known targets.

    R^2 is 0 where nothing varies, as of one hour. A horizon of which no target is known is left
    out: of the mean of the horizons' MAE, too.
    """
    # Imported here because it takes seconds, which a node that only trains need not spend.
    torchmetrics = imported("torchmetrics.functional", "fedagent[traffic]", "Scoring forecasts")
    found = {}
    for number, horizon in enumerate(HORIZONS):
        known = batch.is_known[:, number] > 0
        if not known.any():
            continue
        pair = forecasts[known, number].double(), batch.targets[known, number].double()
        found[f"mae-{horizon}h"] = float(torchmetrics.mean_absolute_error(*pair)) * series.deviation
        varies = len(pair[1]) > 1
        found[f"r2-{horizon}h"] = float(torchmetrics.r2_score(*pair)) if varies else 0.0
    mae = fmean(error for name, error in found.items() if name.startswith("mae-"))
    return {"mae": mae, **found, "num-examples": float(len(forecasts))}
