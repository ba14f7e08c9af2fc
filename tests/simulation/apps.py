"""Small ClientApps, what they are asked, and the fleets they live on."""

import os
import random
import signal
from collections.abc import Callable

import numpy as np
import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.app import ConfigRecord as Config
from flwr.clientapp import ClientApp

from fedagent._flower import empty_run
from fedagent.simulation import Fleet, Scripted, SimulationGrid
from fedagent.simulation.workers.base import Executor
from fedagent.simulation.workers.inline import Inline

Answering = Callable[[Message, Context], RecordDict]


def app_of(answer: Answering) -> ClientApp:
    """A ClientApp that answers everything with `answer`."""
    app = ClientApp()

    def reply(message: Message, context: Context) -> Message:
        return Message(answer(message, context), reply_to=message)

    app.train()(reply)
    app.evaluate()(reply)
    app.query()(reply)
    return app


def arrays(*values: float) -> ArrayRecord:
    return ArrayRecord({"w": torch.tensor(values)})


def metrics(**values: float) -> RecordDict:
    return RecordDict({"metrics": MetricRecord({"num-examples": 1, **values})})


def echo(message: Message, context: Context) -> RecordDict:
    """The arrays as they came."""
    return RecordDict({"arrays": message.content["arrays"], **metrics()})


def count(message: Message, context: Context) -> RecordDict:
    """How often this node was asked, from its Context state."""
    number = context.state.metric_records.get("asked", MetricRecord({"n": 0}))["n"] + 1
    context.state["asked"] = MetricRecord({"n": number})
    return metrics(asked=number)


def draw(message: Message, context: Context) -> RecordDict:
    """One draw from each of the global generators."""
    return metrics(a=random.random(), b=float(np.random.rand()), c=torch.rand(1).item())


def fail_as_told(message: Message, context: Context) -> RecordDict:
    """What the message's config says: ``die``, ``exit``, ``raise``; otherwise the process id."""
    told = message.content["config"].get("do")
    if told == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if told == "exit":
        raise SystemExit("the client leaves")
    if told == "raise":
        raise ValueError("broken sensor")
    return metrics(pid=os.getpid())


counting = app_of(count)  # for "tests.simulation.apps:counting"


def request(
    node: int, kind: str = "train", *, record: ArrayRecord | None = None, **config
) -> Message:
    """A fresh message for node 0, 1, ..."""
    content = RecordDict({"arrays": record or arrays(1.0, 2.0), "config": Config(config)})
    return Message(content, dst_node_id=1001 + node, message_type=kind)


def node_of(reply: Message) -> int:
    return reply.metadata.src_node_id - 1001


def fleet_of(*seconds: float, profiles: dict | None = None) -> Scripted:
    """One node per number, which is its seconds per step."""
    return Scripted(num_nodes=len(seconds), times=seconds, profiles=profiles or {})


def grid_of(
    fleet: Fleet, answer: Answering = echo, executor: Executor | None = None, seed: int = 0
) -> SimulationGrid:
    return SimulationGrid(fleet, executor or Inline(app_of(answer)), empty_run(1), {}, seed)
