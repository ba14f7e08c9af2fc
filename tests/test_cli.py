import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fedagent.cli import main

ROOT = Path(__file__).parents[1]
SMALL = ["debug=on", "app.model=linear"]
COMMANDS = tuple(
    "run resume report watch calibrate new certificates doctor node".split()  # noqa: SIM905
)


def fedagent(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess:
    return started([Path(sys.executable).parent / "fedagent", *arguments], cwd)


def started(command: list, cwd: Path = ROOT) -> subprocess.CompletedProcess:
    environment = {**os.environ, "FLWR_TELEMETRY_ENABLED": "0"}
    return subprocess.run(
        command,
        cwd=cwd,
        text=True,
        capture_output=True,
        timeout=300,
        env=environment,
        check=False,
    )


@pytest.fixture
def said(monkeypatch, capsys):
    """Call the command line in this process; return exit status and what it printed."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "path", [*sys.path])

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["fedagent", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        return end.value.code, *capsys.readouterr()

    return call


def test_run_help_lists_groups_and_choices_and_not_what_they_share(said):
    status, printed, _ = said("run", "--help")
    assert status == 0
    assert "strategy" in printed
    assert "fedbuff" in printed
    assert "base" not in printed


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_also_as_a_module(command):
    done = started([sys.executable, "-m", "fedagent", command, "--help"])
    assert done.returncode == 0, done.stderr
    assert "usage" in done.stdout.lower()


def test_the_list_of_commands_costs_no_machine_learning():
    listed = "import sys, fedagent.cli as c; print([n for n in sys.modules if n in sys.argv])"
    done = started([sys.executable, "-c", listed, "torch", "hydra", "flwr", "cryptography"])
    assert done.stdout.strip() == "[]"
    assert all(command in fedagent("--help").stdout for command in COMMANDS)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--cfg", "job", "strategy=fedasync"], "alpha: 0.6"),
        (["seed=7", "-c", "job", "learning_rate=0.25"], "seed: 7"),  # overrides around a flag
        (["--cfg=job", "--resolve", "--package", "fleet", "seed=7"], "seed: 7"),
        (["--cfg", "hydra"], "sweep:"),
        (["--info", "defaults"], "strategy/ringmaster_lmo"),
        (["--config-name", "config", "-c", "job"], "seed: 1"),
        (["--hydra-help"], "--multirun"),
        (["--version"], "Hydra"),
    ],
)
def test_hydras_own_flags_pass_through(said, arguments, says):
    status, printed, complaint = said("run", *arguments)
    assert status == 0, complaint
    assert says in printed


def test_a_run_leaves_its_files_and_a_sweep_is_reported(tmp_path):
    done = fedagent("run", "-m", *SMALL, "seed=1,2", "display=true", f"hydra.sweep.dir={tmp_path}")
    assert done.returncode == 0, done.stderr
    for number in "01":
        folder = tmp_path / number
        assert (folder / ".hydra" / "overrides.yaml").is_file()
        assert (folder / "metrics.jsonl").is_file()
        assert json.loads((folder / "summary.json").read_text())["num_updates"] == 4
    assert "ended: 4 updates" in done.stdout

    report = fedagent("report", str(tmp_path), "--json")
    assert report.returncode == 0, report.stderr
    rows = json.loads(report.stdout)
    assert [row["num_reached"] for row in rows] == [0]  # two seeds of one experiment
    assert (tmp_path / "comparison.png").is_file()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["strategy=fedbuf"], "did you mean fedbuff?"),
        (["stratgy=fedbuff"], "did you mean strategy?"),
        (["strategy=fedbuff", "strategy.bufer_size=3"], "did you mean strategy.buffer_size?"),
        (["seed"], "write seed=VALUE"),
        (["fleet=trace"], "Missing mandatory value: fleet.path=VALUE"),
        (["seed=abc"], "seed='abc' must be int"),
        (["fleet.links.latency_s=low"], "fleet.links.latency_s='low' must be float"),
        (["monitor=[json"], "monitor=[json cannot be read"),
        (["--cfg", "job", "stratgy=fedbuff"], "did you mean strategy?"),
        (["-c", "jbo"], "choose from"),
        (["--resolve"], "--resolve goes with --cfg"),
        (["--cfg", "job", "-m"], "exclude each other"),
        (["--no-such-flag"], "--hydra-help"),
        # what is wrong with one of a sweep's jobs is said before the first of them starts
        (["-m", *SMALL, "strategy=fedasync,fedbuf"], "did you mean fedbuff?"),
        (
            ["-m", "strategy=fedbuff", "seed=1,2", "strategy.bufer_size=3,4"],
            "strategy.buffer_size?",
        ),
        (["-m", *SMALL, "strategy=fedbuff,fedavg", "strategy.buffer_size=2"], "not a setting"),
        (["-m", *SMALL, "learning_rate=0.1,fast"], "learning_rate='fast' must be float"),
        (["-m", *SMALL, "strategy=glob(nothing*)"], "stands for no value"),
    ],
)
def test_a_wrong_word_is_one_message_before_anything_runs(said, arguments, says, tmp_path):
    status, printed, complaint = said("run", *arguments, f"output_dir={tmp_path}")
    assert (status, printed) == (2, "")
    assert says in complaint
    assert len(complaint.splitlines()) <= 2
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("strategy=fedbuf", "did you mean fedbuff?"),
        ("~fleet", "takes away what a run needs"),
        ("~seed", "takes away what a run needs"),
        ("per_node=3", "per_node=3 must be an instance of PerNode or None"),
        ("target=high", "target='high' must be float (config.yaml says so)"),
        ("local_steps=0", "local_steps=0 must be at least 1"),  # that no node could build
        ("client_mods=[clipping]", "mods=['clipping'] must be a list of a function"),
        ("strategy.rule.momentum=2", "momentum=2 must lie in [0, 1)"),  # known once it is built
    ],
)
def test_a_wrong_value_ends_the_program_without_a_traceback(override, says):
    done = fedagent("run", *SMALL, override)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_a_run_takes_its_configuration_from_where_flags_say(tmp_path):
    more = tmp_path / "more"
    more.mkdir()
    (more / "brief.yaml").write_text("defaults:\n  - config\n  - _self_\nseed: 7\n")
    done = fedagent(
        "run", *SMALL, "--config-name=brief", f"--config-dir={more}", f"output_dir={tmp_path}/out"
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["about"]["seed"] == 7


def test_two_runs_that_name_one_folder_lose_nothing(said, tmp_path):
    made_up = f"hydra.run.dir={tmp_path / 'made-up'}"
    for seed, folder in ((1, "made-up"), (2, "made-up-2")):
        said("run", *SMALL, f"seed={seed}", made_up)
        summary = json.loads((tmp_path / folder / "summary.json").read_text())
        assert summary["about"]["seed"] == seed
        assert f"seed={seed}" in (tmp_path / folder / ".hydra" / "overrides.yaml").read_text()

    given = f"output_dir={tmp_path / 'made-up'}"
    status, _, complaint = said("run", *SMALL, "seed=3", given, made_up)
    assert status == 2
    assert "made-up holds a run already" in complaint
    assert len(complaint.splitlines()) == 1
    assert json.loads((tmp_path / "made-up" / "summary.json").read_text())["about"]["seed"] == 1
    said("run", *SMALL, "seed=3", given, made_up, "overwrite=true")
    assert json.loads((tmp_path / "made-up" / "summary.json").read_text())["about"]["seed"] == 3


def test_jobs_of_a_sweep_that_name_one_folder_do_not_overwrite_each_other(said, tmp_path):
    sweep = f"hydra.sweep.dir={tmp_path / 'sweep'}"
    given = f"output_dir={tmp_path / 'one'}"
    status, _, complaint = said("run", "-m", *SMALL, "seed=1,2", sweep, given)
    assert status == 2
    assert f"say hydra.sweep.dir={tmp_path / 'one'}" in complaint
    assert not list(tmp_path.iterdir())  # nor has the first of them begun
    named = f"output_dir='{tmp_path}/one-${{seed}}'"
    assert said("run", "-m", *SMALL, "seed=1,2", sweep, named)[0] == 0
    for seed in (1, 2):
        summary = json.loads((tmp_path / f"one-{seed}" / "summary.json").read_text())
        assert summary["about"]["seed"] == seed


@pytest.mark.parametrize("setting", ["output_dir", "hydra.run.dir"])
def test_a_folder_that_cannot_be_written_to_is_one_line(said, tmp_path, setting):
    elsewhere = [] if setting == "hydra.run.dir" else [f"hydra.run.dir={tmp_path}"]
    status, printed, complaint = said("run", *SMALL, f"{setting}=/proc/nowhere", *elsewhere)
    assert (status, printed) == (2, "")
    assert complaint.startswith("fedagent: /proc/nowhere")
    assert "cannot be written" in complaint
    assert len(complaint.splitlines()) == 1


def test_with_json_a_run_ends_with_its_summary_in_one_line(said, tmp_path):
    status, printed, _ = said("run", *SMALL, "--json", f"output_dir={tmp_path / 'run'}")
    told = json.loads(printed.splitlines()[-1])
    assert status in (0, None)
    assert told.pop("output_dir") == str(tmp_path / "run")
    assert told == json.loads((tmp_path / "run" / "summary.json").read_text())

    taken = said("run", *SMALL, "--json", f"output_dir={tmp_path / 'run'}")
    assert taken[:2] == (2, ""), "it did not begin"


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_with_json_a_run_that_is_stopped_says_so_and_has_its_exit_code(number, status, tmp_path):
    endless = [*SMALL, "stopping.max_updates=1000000", "display=false", "--json"]
    process = subprocess.Popen(
        [sys.executable, "-m", "fedagent", "run", *endless, f"output_dir={tmp_path / 'run'}"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "FLWR_TELEMETRY_ENABLED": "0"},
    )
    metrics = tmp_path / "run" / "metrics.jsonl"
    while process.poll() is None and (not metrics.exists() or "version" not in metrics.read_text()):
        time.sleep(0.1)
    process.send_signal(number)
    printed, _ = process.communicate(timeout=300)
    assert process.returncode == status
    assert json.loads(printed.splitlines()[-1])["end"]["kind"] == "stopped"


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGTERM")
def test_a_run_and_a_sweep_that_get_sigterm_leave_their_files_and_say_so(tmp_path):
    endless = [*SMALL, "stopping.max_updates=1000000", "display=false"]
    command = [sys.executable, "-m", "fedagent", "run", "-m", *endless, "seed=1,2"]
    process = subprocess.Popen(
        [*command, f"hydra.sweep.dir={tmp_path / 'sweep'}"],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(ROOT), "FLWR_TELEMETRY_ENABLED": "0"},
    )
    metrics = tmp_path / "sweep" / "0" / "metrics.jsonl"
    while process.poll() is None and (not metrics.exists() or "version" not in metrics.read_text()):
        time.sleep(0.1)
    process.terminate()
    assert process.wait(300) == 143
    summary = json.loads((metrics.parent / "summary.json").read_text())
    assert summary["end"] == {"kind": "stopped", "detail": "SIGTERM"}
    assert (metrics.parent / "model.safetensors").is_file()
    assert not (tmp_path / "sweep" / "1").exists()


def test_run_elsewhere_says_where_to_go(tmp_path):
    done = fedagent("run", cwd=tmp_path)
    assert done.returncode == 2
    assert "is not a Flower App" in done.stderr


def test_report_of_nothing_says_so(tmp_path):
    done = fedagent("report", str(tmp_path))
    assert done.returncode != 0
    assert str(tmp_path) in done.stderr


def test_calibration_of_a_run_says_where_the_devices_are_and_of_nothing_says_so(said, tmp_path):
    status, _, complaint = said("calibrate", str(tmp_path))
    assert status == 2
    assert "holds no jobs.jsonl" in complaint
    line = '{"node_id": "7", "local_steps": 4, "duration_s": 2, "bytes_down": 1, "bytes_up": 1}'
    (tmp_path / "jobs.jsonl").write_text(f"{line}\n")
    status, printed, _ = said("calibrate", str(tmp_path))
    assert status == 0
    assert f"fleet=trace fleet.path={tmp_path / 'devices.csv'} fleet.num_nodes=1" in printed
    assert (tmp_path / "devices.csv").read_text().endswith("7,0,0.5,,,\n")


def test_a_run_that_stalls_says_why_leaves_its_files_and_fails(tmp_path):
    stalls = ["+strategy.min_available_nodes=9", "timeout_s=5"]
    run = fedagent("run", *SMALL, *stalls, f"output_dir={tmp_path / 'stalled'}", "--json")
    assert run.returncode == 3, run.stdout
    assert json.loads(run.stdout.splitlines()[-1])["end"]["kind"] == "stalled"
    assert "Traceback" not in run.stderr
    assert "stalled: only 4 of min_available_nodes=9 nodes connected within 5 s" in run.stderr
    summary = json.loads((tmp_path / "stalled" / "summary.json").read_text())
    assert summary["end"]["kind"] == "stalled"
    assert (tmp_path / "stalled" / "model.safetensors").is_file()

    whole = fedagent("run", *SMALL, f"output_dir={tmp_path / 'whole'}")
    assert whole.returncode == 0, whole.stderr
    table = json.loads(fedagent("report", "--json", str(tmp_path)).stdout)
    assert sum(row["num_seeds"] for row in table) == 1
    assert [u["end"]["kind"] for row in table for u in row["unfinished"]] == ["stalled"]


# --- an app that brings no conf/ ------------------------------------------------------------------


PYPROJECT = """
[tool.flwr.app.components]
serverapp = "pinging:server"
clientapp = "pinging:client"
[tool.flwr.app.config]
rounds = 2
lr = 0.1
seed = 9
"""
PINGING = """
from flwr.app import Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

server, client = ServerApp(), ClientApp()

@server.main()
def main(grid, context):
    print("run config:", dict(sorted(context.run_config.items())))
    for _ in range(context.run_config["rounds"]):
        nodes = list(grid.get_node_ids())
        asked = [Message(RecordDict(), node, "train") for node in nodes]
        assert len(list(grid.send_and_receive(asked))) == len(nodes)

@client.train()
def train(message, context):
    if context.node_config["partition-id"] == 0:
        raise ValueError("broken")
    return Message(RecordDict({"m": MetricRecord({"n": 1})}), reply_to=message)
"""


@pytest.fixture
def plain_app(tmp_path) -> Path:
    """The folder of a Flower App that knows nothing of fedagent."""
    (tmp_path / "pyproject.toml").write_text(PYPROJECT)
    (tmp_path / "pinging.py").write_text(PINGING)
    return tmp_path


def test_any_flower_app_runs_on_a_simulated_fleet(plain_app):
    words = ["fleet=two_class", "fleet.num_nodes=6", "fleet.ratio=5", "runtime.workers=2", "seed=3"]
    settings = ["--run-config", "rounds=3 lr=0.5"]
    done = fedagent("run", *words, *settings, "output_dir=out", cwd=plain_app)
    assert done.returncode == 0, done.stderr
    assert "run config: {'lr': 0.5, 'rounds': 3, 'seed': 9}" in done.stdout
    assert (
        "ended after 15 virtual s · 15 updates · 15 applied, 3 failed(client-app-raised)"
        in done.stdout
    )
    told = json.loads((plain_app / "out" / "simulation.json").read_text())
    assert told["virtual_s"] == 15.0
    assert told["outcomes"] == {"applied": 15, "failed(client-app-raised)": 3}
    assert told["concurrency"] == 6


def test_any_flower_app_can_be_swept(plain_app):
    words = ["-m", "fleet=equal,two_class", "runtime=inline", "hydra.sweep.dir=swept", "--json"]
    done = fedagent("run", *words, cwd=plain_app)
    assert done.returncode == 0, done.stderr
    told = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"output')]
    assert [line["virtual_s"] for line in told] == [2.0, 50.0]
    assert json.loads(done.stdout.splitlines()[-1]) == told[-1]
    files = [plain_app / "swept" / number / "simulation.json" for number in "01"]
    assert [json.loads(f.read_text())["virtual_s"] for f in files] == [2.0, 50.0]


def test_help_of_any_flower_app_lists_its_settings_and_only_the_groups_it_has(plain_app):
    done = fedagent("run", "--help", cwd=plain_app)
    assert done.returncode == 0, done.stderr
    assert "lognormal" in done.stdout
    assert "rounds=2" in done.stdout
    assert "--run-config" in done.stdout
    assert "strategy" not in done.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["strategy=fedbuff"], "this app decides its strategy itself"),
        (["scheduler.seed=1"], "this app decides its scheduler itself"),
        (["lr=0.5"], "write --run-config 'lr=0.5'"),
        (["--run-config", "lrr=0.5"], "did you mean lr?"),
        (["--run-config"], "expected one argument"),
        (["flet=equal"], "did you mean fleet"),
        (["fleet=equall"], "did you mean equal?"),
        (["seed=abc"], "seed='abc' must be int"),
    ],
)
def test_a_wrong_word_to_any_flower_app_is_one_message(
    said, plain_app, monkeypatch, arguments, says
):
    monkeypatch.chdir(plain_app)
    status, printed, complaint = said("run", *arguments)
    assert (status, printed) == (2, "")
    assert says in complaint
    assert len(complaint.splitlines()) == 1
    assert not (plain_app / "outputs").exists()


def test_an_app_that_raises_has_failed(plain_app):
    (plain_app / "pinging.py").write_text(PINGING.replace("nodes = ", "1 / 0 #"))
    done = fedagent("run", "runtime=inline", "output_dir=out", "--json", cwd=plain_app)
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {"output_dir": str(plain_app / "out")}


def test_an_app_whose_import_fails_is_told_its_own_line(plain_app):
    (plain_app / "pinging.py").write_text("import math\nimport no_such_package\n")
    done = fedagent("run", "runtime=inline", cwd=plain_app)
    assert done.returncode == 2
    assert "pinging.py:2: ModuleNotFoundError: No module named 'no_such_package'" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_app_with_conf_takes_no_run_config(said):
    status, _, complaint = said("run", "--run-config", "a=1")
    assert status == 2
    assert "words such as seed=3 alone" in complaint
