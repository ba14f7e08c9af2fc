"""The collaborative strategy: one model per node, measured node by node."""

from typing import Any, cast

import numpy as np
from flwr.app import MetricRecord, RecordDict

from fedagent import keys
from fedagent._flower import aggregate_metricrecords
from fedagent.mixing import Mixing, Weights
from fedagent.rules.staleness import Staleness, polynomial
from fedagent.strategies.async_strategy import AsyncStrategy


class Collaborative(AsyncStrategy):
    """Every node keeps a model of its own and learns from its neighbours; see `Mixing`.

    Nodes train and evaluate their own models; the published one, which ``evaluate_fn`` sees, is
    their mean. Which node has which place in the mixing is said by `partition_id_mod` on the
    clients (`fedagent.client.mods`); without it, by the order of first replies.

    Parameters
    ----------
    mixing : the weights c_ik, such as ``ring(20)``; see `fedagent.mixing`.
    staleness, buffer_size, consensus : see `Mixing`.
    options : the fields of `AsyncOptions`. Metrics of federated evaluation are aggregated by
        `per_node_metrics` unless ``evaluate_metrics_aggr_fn`` says otherwise.
    """

    def __init__(
        self,
        mixing: Weights,
        *,
        staleness: Staleness = polynomial,
        buffer_size: int | None = 1,
        consensus: float = 0.0,
        **options: Any,
    ) -> None:
        options.setdefault("train_metrics_aggr_fn", mean_metrics)
        options.setdefault("evaluate_metrics_aggr_fn", per_node_metrics)
        super().__init__(Mixing(mixing, staleness, buffer_size, consensus), **options)


def mean_metrics(records: list[RecordDict], weighted_by_key: str) -> MetricRecord:
    """Return Flower's weighted means, without that of the partition ids."""
    averaged = [
        {k: v for k, v in _metrics(record).items() if k != keys.PARTITION_ID} for record in records
    ]
    return aggregate_metricrecords(
        [RecordDict({"metrics": MetricRecord(metrics)}) for metrics in averaged], weighted_by_key
    )


def per_node_metrics(records: list[RecordDict], weighted_by_key: str) -> MetricRecord:
    """Return every metric's weighted mean, its extremes over the nodes, and each node's value.

    ``accuracy`` becomes ``accuracy`` (the mean), ``accuracy-min``, ``accuracy-max`` and
    ``accuracy-per-node``, a list in the order of ``nodes``, which holds the partition ids (or
    positions, where clients do not tell them). The worst node is the minimum of an accuracy and
    the maximum of a loss.
    """
    nodes = [_metrics(r).get(keys.PARTITION_ID, n) for n, r in enumerate(records)]
    by_node = sorted(zip(nodes, map(_metrics, records), strict=True), key=lambda pair: pair[0])
    spread: dict[str, Any] = {"nodes": [node for node, _ in by_node]}
    for name, first in by_node[0][1].items():
        if name in (weighted_by_key, keys.PARTITION_ID) or isinstance(first, list):
            continue
        values = [float(cast(float, metrics[name])) for _, metrics in by_node]
        spread |= {
            f"{name}-min": float(np.min(values)),  # NaN if any is, wherever it stands
            f"{name}-max": float(np.max(values)),
            f"{name}-per-node": values,
        }
    return MetricRecord({**mean_metrics(records, weighted_by_key), **spread})


def _metrics(record: RecordDict) -> MetricRecord:
    return next(iter(record.metric_records.values()))
