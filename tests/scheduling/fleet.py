"""A fleet of sure and steady nodes, without Flower: what a scheduler sees of one, in microseconds.

And the same as a real run, with a ClientApp that sends back what it got.
"""

import heapq

from flwr.app import Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from fedagent import FedBuff
from fedagent.scheduling import Assignment, IdleNodes, Observation, Scheduler
from fedagent.stopping import MaxSeconds
from tests.toy import Log, run


def idle_of(*nodes: int) -> IdleNodes:
    idle = IdleNodes()
    for node in nodes:
        idle.add(node)
    return idle


def done(node: int, steps: int | None, duration_s: float, **known) -> Observation:
    return Observation(node, steps, duration_s, **known)


class SteadyFleet:
    """Node i takes ``seconds[i]`` per step; `turn` lets the next job arrive."""

    def __init__(self, seconds: dict[int, float]) -> None:
        self.seconds, self.now_s = seconds, 0.0
        self.idle = idle_of(*seconds)
        self.at_work: list[tuple[float, int, float, int]] = []

    def hand_out(self, scheduler: Scheduler) -> list[Assignment]:
        jobs = []
        while (job := scheduler.assign(self.idle, self.now_s)) is not None:
            self.idle.discard(job.node_id)
            finish_s = self.now_s + job.local_steps * self.seconds[job.node_id]
            heapq.heappush(self.at_work, (finish_s, job.node_id, self.now_s, job.local_steps))
            jobs.append(job)
        return jobs

    def turn(self, scheduler: Scheduler) -> list[Assignment]:
        self.now_s = min(self.at_work[0][0], scheduler.next_due_s())
        while self.at_work and self.at_work[0][0] <= self.now_s:
            finish_s, node, sent_s, steps = heapq.heappop(self.at_work)
            scheduler.observe(done(node, steps, finish_s - sent_s, metrics={"train-loss": 1.0}))
            self.idle.add(node)
        return self.hand_out(scheduler)


def echo() -> ClientApp:
    app = ClientApp()

    @app.train()
    def _train(message, context):
        metrics = MetricRecord({"num-examples": 1})
        content = RecordDict({"arrays": message.content["arrays"], "metrics": metrics})
        return Message(content, reply_to=message)

    return app


def trained(scheduler, fleet, seconds: float, buffer_size: int = 5, **options) -> Log:
    log = Log()
    strategy = FedBuff(
        buffer_size=buffer_size,
        scheduler=scheduler,
        stopping=[MaxSeconds(seconds)],
        callbacks=[log],
        fraction_evaluate=0.0,
        **options,
    )
    run(strategy, fleet, rounds=1_000_000, client=echo())
    return log
