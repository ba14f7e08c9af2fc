"""What a library user and a device install is enough for everything but the applications.

The environment with the core alone is this one, less every distribution that the core's
requirements do not lead to: none of their modules and files is found, in child processes either.
"""

import os
import signal
import subprocess
import sys
import threading
import tomllib
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

FINDER = """
import sys
from importlib.machinery import PathFinder

class CoreAlone(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name.partition(".")[0] not in {modules!r}:
            return super().find_spec(name, path, target)

    @classmethod
    def find_distributions(cls, *context):
        found = super().find_distributions(*context)
        return (one for one in found if one.name not in {distributions!r})

sys.meta_path[sys.meta_path.index(PathFinder)] = CoreAlone
"""


def closure(requirements: list[str]) -> set[str]:
    """Return the distributions that `requirements` lead to, here and now."""
    found: set[str] = set()
    seen: set[tuple[str, frozenset[str]]] = set()
    waiting = [Requirement(text) for text in requirements]
    while waiting:
        requirement = waiting.pop()
        name, extras = canonicalize_name(requirement.name), frozenset(requirement.extras)
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        found.add(name)
        try:
            needs = [Requirement(text) for text in requires(name) or ()]
        except PackageNotFoundError:  # not needed by anything that is installed
            continue
        for need in needs:
            if need.marker is None or any(
                need.marker.evaluate({"extra": extra}) for extra in (extras or {""})
            ):
                waiting.append(need)
    return found


def beyond_the_core() -> dict[str, set[str]]:
    """Return the distributions outside the core's closure, and the modules that come with them."""
    core = closure(PROJECT["dependencies"])
    owners = packages_distributions()
    ours = {path.stem for path in ROOT.iterdir()}  # some packages bring a "tests" of their own
    return {
        "distributions": {
            owner
            for names in owners.values()
            for owner in names
            if canonicalize_name(owner) not in core
        },
        "modules": {
            module
            for module, names in owners.items()
            if not core.intersection(map(canonicalize_name, names))
        }
        - ours
        - set(sys.stdlib_module_names),
    }


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """Return the variables with which Python finds the core's packages and no others."""
    folder = tmp_path_factory.mktemp("core_alone")
    (folder / "sitecustomize.py").write_text(FINDER.format(**beyond_the_core()))
    return {**os.environ, "PYTHONPATH": os.pathsep.join((str(folder), str(ROOT)))}


@pytest.fixture(scope="module")
def core_alone(environment):
    """Make ``core_alone(*arguments)``: run Python there, from the root of the repository."""

    def run(*command, **options):
        return subprocess.run(
            [sys.executable, *command],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
            **options,
        )

    return run


def passed(done) -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("module", ["matplotlib", "pandas", "sklearn", "torchvision", "mlxtend"])
def test_what_the_extras_bring_is_not_there(module, core_alone):
    assert f"No module named '{module}'" in core_alone("-c", f"import {module}").stderr


IMPORT_EVERYTHING = """
import pkgutil
from importlib import import_module

for root in ("fedagent", "server", "clients"):
    package = import_module(root)
    for module in pkgutil.walk_packages(package.__path__, f"{root}."):
        if not module.name.endswith("__main__"):
            import_module(module.name)
            print(module.name)
"""


def test_every_module_can_be_imported(core_alone):
    imported = passed(core_alone("-c", IMPORT_EVERYTHING)).split()
    assert {"fedagent.report.figure", "fedagent.callbacks.mlflow", "server.app"} <= set(imported)


TRAIN = """
from fedagent import FedBuff
from fedagent.simulation import Lognormal
from tests.toy import TRUE_WEIGHTS, run

trained = run(FedBuff(buffer_size=2), Lognormal(num_nodes=6), rounds=30, workers=2)
print(float((trained.result.arrays["weight"].numpy()[0] - TRUE_WEIGHTS.numpy()).__abs__().max()))
"""


def test_fedbuff_trains_plain_client_apps(core_alone):
    assert float(passed(core_alone("-c", TRAIN)).split()[-1]) < 0.5


def test_the_node_has_its_help(core_alone):
    assert "--superlink" in passed(core_alone("-m", "fedagent", "node", "--help"))


def test_a_node_starts_its_processes(environment):
    """It never reaches its SuperLink; what it needs for that, it has."""
    command = (sys.executable, "-m", "fedagent", "node", "--insecure", "--superlink=127.0.0.1:1")
    node = subprocess.Popen(
        command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    give_up = threading.Timer(200, os.killpg, (node.pid, signal.SIGKILL))
    give_up.start()
    said = ""
    for line in node.stderr:
        said += line
        if "Starting Flower SuperNode" in said and "Starting Flower SuperExec" in said:
            break
    give_up.cancel()
    os.killpg(node.pid, signal.SIGKILL)
    node.stderr.close()
    node.wait()
    assert "Starting Flower SuperExec" in said, said
    assert "No module named" not in said


def test_the_warm_process_of_a_node_has_everything_imported(core_alone):
    reader, writer = os.pipe()
    os.close(writer)  # so that there is never a task
    program = ("-m", "fedagent.deployment.warm_node.server", str(reader), "--executor=fork")
    try:
        done = core_alone(*program, "--preload=fedagent.client", pass_fds=[reader])
    finally:
        os.close(reader)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_default_application_names_its_pip_line(core_alone):
    done = core_alone("-m", "fedagent", "run", "stopping.max_updates=1", "runtime=inline")
    assert done.returncode == 2
    assert 'pip install "fedagent[app]"' in done.stderr
    assert "Traceback" not in done.stderr
