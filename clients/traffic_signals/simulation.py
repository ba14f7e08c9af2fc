"""An hour of a city under a controller of its signals.

Every `GREEN_S` seconds a signal's controller picks a phase. Another one than before comes after
`YELLOW_S` of yellow, where a green turns red: SUMO inserts none by itself.
Shape legend: P phases of a signal, F features.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from clients.traffic_signals.data import Signal, load, simulation
from fedagent.tasks import Metrics

GREEN_S, YELLOW_S = 5, 3
NUM_FEATURES = 6
Features = npt.NDArray[np.float32]

Controller = Callable[[Mapping[int, Features]], Mapping[int, int]]
"""From the (P, F) features of the signals that are due, by number, to the phases they get."""


@dataclass
class _State:
    since_s: float
    phase: int = 0
    wanted: int = 0
    due_s: float = 0.0


def drive(
    scenario: str, seed: int, controller: Controller | None, seconds: float | None = None
) -> Metrics:
    """Simulate and return what it was like for the vehicles.

    ``trip-time``: seconds from when a vehicle wanted to enter until it arrived, or the end: mean
    over all, those still inside and those that found no room to enter with them. ``arrived``, and
    ``trip-time-arrived`` and ``waiting`` of these alone, as SUMO's trip statistics have it;
    ``not-arrived``; ``num-examples`` vehicles.

    Parameters
    ----------
    scenario : one of `SCENARIOS`.
    seed : of SUMO: the drivers.
    controller : None leaves the fixed programme.
    seconds : how long, > 0; None for all of the hour.
    """
    signals = load(scenario)
    with simulation(scenario, seed) as sumo:
        now = sumo.simulation.getTime()
        end = sumo.simulation.getEndTime() if seconds is None else now + seconds
        states = [_State(since_s=now) for _ in signals]
        if controller:
            for signal in signals:
                sumo.trafficlight.setRedYellowGreenState(signal.name, signal.phases[0])
        present = departed = arrived = waits = 0
        while now < end:
            if controller:
                _control(sumo, signals, states, controller, now)
            sumo.simulationStep()
            now = sumo.simulation.getTime()
            waits = len(sumo.simulation.getPendingVehicles())
            present += sumo.vehicle.getIDCount() + waits
            departed += sumo.simulation.getDepartedNumber()
            arrived += sumo.simulation.getArrivedNumber()
        said = [
            float(sumo.simulation.getParameter("", f"device.tripinfo.{name}"))
            for name in ("duration", "waitingTime")
        ]
    return {
        "trip-time": present / max(1, departed + waits),
        "trip-time-arrived": said[0],
        "waiting": said[1],
        "arrived": float(arrived),
        "not-arrived": float(departed + waits - arrived),
        "num-examples": float(max(1, departed + waits)),
    }


def _control(
    sumo: Any,
    signals: Sequence[Signal],
    states: Sequence[_State],
    controller: Controller,
    now: float,
) -> None:
    due = {}
    for number, (signal, state) in enumerate(zip(signals, states, strict=True)):
        if now < state.due_s:
            continue
        if state.wanted != state.phase:  # the yellow is over
            state.phase, state.since_s, state.due_s = state.wanted, now, now + GREEN_S
            sumo.trafficlight.setRedYellowGreenState(signal.name, signal.phases[state.phase])
        else:
            due[number] = features(sumo, signal, state.phase, now - state.since_s)
    if not due:
        return
    for number, phase in controller(due).items():
        signal, state = signals[number], states[number]
        state.wanted, state.due_s = phase, now + GREEN_S
        if phase != state.phase:
            state.due_s = now + YELLOW_S
            yellow = between(signal.phases[state.phase], signal.phases[phase])
            sumo.trafficlight.setRedYellowGreenState(signal.name, yellow)


def between(before: str, after: str) -> str:
    """Return the state that warns all links that had green and lose it."""
    pairs = zip(before, after, strict=True)
    return "".join("y" if b in "Gg" and a not in "Gg" else b for b, a in pairs)


def features(sumo: Any, signal: Signal, phase: int, green_s: float) -> Features:
    """Return (P, F): what stands and what moves, at the stop line and upstream; has green; since.

    Vehicles are counted, on all lanes that a phase lets go; "since" is in minutes.
    """
    counts = {
        lane: (halting := sumo.lane.getLastStepHaltingNumber(lane),
               sumo.lane.getLastStepVehicleNumber(lane) - halting)
        for lanes in (*signal.lanes, *signal.upstream)
        for lane in lanes
    }  # fmt: skip
    rows = []
    for number, parts in enumerate(zip(signal.lanes, signal.upstream, strict=True)):
        here, there = (np.sum([counts[lane] for lane in part] or [(0, 0)], 0) for part in parts)
        is_green = float(number == phase)
        rows.append([here[0], there[0], here[1], there[1], is_green, is_green * green_s / 60])
    return np.array(rows, np.float32)


def longest_queue(due: Mapping[int, Features]) -> dict[int, int]:
    """Give green to the most vehicles that stand at the stop line; on a tie it stays."""
    return {k: int((rows[:, 0] + 0.5 * rows[:, 4]).argmax()) for k, rows in due.items()}
