"""What a page weighs and how fast it is, and what a live view costs the run beside it.

    page_mb, write_s        of the default run's page (200 updates with --quick), Bokeh's import in
    first_paint_s           Chromium's, from the disk, without a network; None without Chromium
    drawn_s                 until every chart is drawn
    jobs_10000_*            the same of 10,000 jobs on 100 nodes
    runs_500_*              the same of 500 runs, and the slowest of four interactions: another
                            axis, a filter, a sort, a zoom
    live_cost               1 - updates per second with live=true over those without, side by side;
                            one reader polls, 200 others connect, ask and never read
    live_cpu_cost           the same of the run's own CPU seconds per update

A process writes each page. Runs with and without are alternated; the ratio is of the medians.

    python -m benchmarks.page [--quick] [--repetitions 5]
"""

import argparse
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

from benchmarks.machine import print_result
from benchmarks.page.browser import Browser, chromium, missing
from benchmarks.page.made_up import write_run

ROOT = Path(__file__).parents[2]
WRITE = """
import json, sys, time
begin_s, begin_cpu_s = time.perf_counter(), time.process_time()
from pathlib import Path
from fedagent.report.page.write import write_page
import bokeh.embed, bokeh.models, bokeh.plotting
import_s = time.perf_counter() - begin_s
write_page([Path(sys.argv[1])], Path(sys.argv[2]))
print(json.dumps({"import_s": import_s, "write_s": time.perf_counter() - begin_s - import_s,
  "cpu_s": time.process_time() - begin_cpu_s}))
"""
NUM_SLOW = 200
TWICE_DRAWN = """
const done = arguments[arguments.length - 1], begun = performance.now();
(() => { ACT })();
requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now() - begun)));
"""
MODEL = "const model = (name) => Bokeh.documents[0].get_model_by_name(name);"
ACTS = {
    "axis": MODEL + "model('axis').active = 0;",
    "filter": MODEL + "model('filter').value_input = 'rule-7';",
    "sort": "const all = (n) => [n, ...[...(n.shadowRoot?.children ?? []), ...n.children]"
    ".flatMap(all)]; all(document.body).find((n) => n.matches('.slick-header-column')).click();",
    "zoom": MODEL + "model('metric-0').x_range.end /= 2;",
}
ZOOM = {"zoom": MODEL + "model('timeline').x_range.end /= 2;"}


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "FLWR_TELEMETRY_ENABLED": "0"}


def written(folder: Path, page: Path) -> dict[str, float]:
    """Write the page of a folder in a process of its own; return its size and seconds."""
    done = subprocess.run(
        [sys.executable, "-c", WRITE, str(folder), str(page)],
        cwd=ROOT, env=environment(), capture_output=True, text=True, check=True,
    )  # fmt: skip
    told = json.loads(done.stdout.splitlines()[-1])
    return {"page_mb": page.stat().st_size / 1e6, **told}


def opened(browser: Browser, page: Path) -> dict[str, float]:
    """Open a page; return when it was painted first, and when all was drawn."""
    begin_s = time.perf_counter()
    browser.open(page.as_uri())
    drawn_s = time.perf_counter() - begin_s
    paint = "return performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
    return {"first_paint_s": browser.js(paint) / 1e3, "drawn_s": drawn_s}


def interaction_s(browser: Browser, acts: dict[str, str]) -> dict[str, float]:
    """Return how long each of some interactions takes, until it is on the screen."""
    return {
        name: browser.driver.execute_async_script(TWICE_DRAWN.replace("ACT", act)) / 1e3
        for name, act in acts.items()
    }


def pages(folder: Path, num_updates: int) -> dict[str, Any]:
    """Return what there is to say of three pages."""
    words = f"stopping.max_updates={num_updates} page=false display=false output_dir={folder}/run"
    command = [sys.executable, "-m", "fedagent", "run", *words.split()]
    run = [*command, f"hydra.run.dir={folder}/hydra"]
    subprocess.run(run, cwd=ROOT, env=environment(), capture_output=True, check=True)
    write_run(folder / "jobs", num_nodes=100, num_jobs=10_000)
    for number in range(500):
        how = {"strategy": f"rule-{number // 5 % 10}", "learning_rate": number // 50 / 10}
        write_run(folder / "runs" / str(number), num_jobs=200, seed=number % 5, **how)
    names = {"run": "", "jobs": "jobs_10000_", "runs": "runs_500_"}
    found: dict[str, Any] = {}
    for name, prefix in names.items():
        told = written(folder / name, folder / f"{name}.html")
        found |= {f"{prefix}{key}": value for key, value in told.items()}
    if lack := missing():
        print(f"No browser: {lack}")
        return found | {"first_paint_s": None}
    with chromium(folder / "profile") as browser:
        for name, prefix in names.items():
            told = opened(browser, folder / f"{name}.html")
            found |= {f"{prefix}{key}": value for key, value in told.items()}
            if name == "jobs":
                found["jobs_10000_zoom_s"] = interaction_s(browser, ZOOM)["zoom"]
        acts = interaction_s(browser, ACTS)
        found |= {f"runs_500_{name}_s": value for name, value in acts.items()}
        found["runs_500_interaction_s"] = max(acts.values())
        found["console_errors"] = len(browser.errors())
    return found


def live_run(folder: Path, num_updates: int, is_watched: bool) -> tuple[float, float]:
    """Run once; return updates per second and the CPU seconds of an update."""
    words = (
        f"app.model=linear runtime=inline stopping.max_updates={num_updates} page=false "
        f"baseline=false showcase=false display=false live={str(is_watched).lower()} "
        f"output_dir={folder} hydra.run.dir={folder}-hydra"
    )
    over = threading.Event()
    process = subprocess.Popen(
        [sys.executable, "-m", "fedagent", "run", *words.split()],
        cwd=ROOT, env=environment(), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    assert process.stdout is not None
    readers = []
    if is_watched:
        port = next(int(p) for line in process.stdout for p in re.findall(r"127.0.0.1:(\d+)", line))
        readers = [threading.Thread(target=_poll, args=(port, over))]
        readers += [threading.Thread(target=_never_read, args=(port, over))]
    for reader in readers:
        reader.start()
    process.stdout.read()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    over.set()
    for reader in readers:
        reader.join()
    assert process.returncode == 0
    summary = json.loads((folder / "summary.json").read_text())
    cpu_s = (used.ru_utime + used.ru_stime) / summary["num_updates"]
    return summary["num_updates"] / summary["wall_time_s"], cpu_s


def live_cost(folder: Path, repetitions: int, num_updates: int) -> dict[str, float]:
    """Return what a live view costs, side by side."""
    rates: dict[bool, list[float]] = {False: [], True: []}
    cpu_s: dict[bool, list[float]] = {False: [], True: []}
    for repetition in range(repetitions):
        for is_watched in (False, True) if repetition % 2 else (True, False):
            where = folder / f"live-{repetition}-{is_watched}"
            rate, cpu = live_run(where, num_updates, is_watched)
            rates[is_watched].append(rate)
            cpu_s[is_watched].append(cpu)
    middle = {name: [statistics.median(told[b]) for b in (False, True)] for name, told in
              (("rate", rates), ("cpu", cpu_s))}  # fmt: skip
    return {
        "updates_per_s_without": middle["rate"][0],
        "updates_per_s_with": middle["rate"][1],
        "live_cost": 1 - middle["rate"][1] / middle["rate"][0],
        "live_cpu_cost": middle["cpu"][1] / middle["cpu"][0] - 1,
    }


def _poll(port: int, over: threading.Event) -> None:
    while not over.wait(2.0):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/data.json", timeout=10).read()
        except OSError:
            continue  # the places are taken, or the run is over


def _never_read(port: int, over: threading.Event) -> None:
    open_: list[socket.socket] = []
    while not over.is_set():
        try:
            one = socket.create_connection(("127.0.0.1", port), timeout=5)
            one.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1:1\r\n\r\n")
            open_.append(one)
        except OSError:
            over.wait(0.2)
        if len(open_) >= NUM_SLOW:
            over.wait()
    for one in open_:
        one.close()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="shorter runs, once")
    parser.add_argument("--repetitions", type=int, help="of live runs: default 5; 1 with --quick")
    options = parser.parse_args()
    repetitions = options.repetitions or (1 if options.quick else 5)
    num_updates = 200 if options.quick else 500
    with tempfile.TemporaryDirectory() as name:
        found: dict[str, Any] = pages(Path(name), num_updates)
        found |= live_cost(Path(name), repetitions, 5 * num_updates)
    told = {k: round(v, 4) if isinstance(v, float) else v for k, v in found.items()}
    print("| what | value |\n|---|---|")
    for key, value in told.items():
        print(f"| {key} | {value} |")
    print_result("page", told, repetitions=repetitions, num_updates=num_updates, seeds=[1])


if __name__ == "__main__":
    main()
