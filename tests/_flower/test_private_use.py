"""What happens where Flower has dropped a private name: it is taken away, and a run is tried."""

import json
import logging
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from fedagent._flower import USES, private_use
from fedagent._flower.private_use import PrivateName, PrivateUse, announce
from fedagent._flower.uses import IDENTITY, MESSAGE_IDS, RECORDS, RUN_CONFIG, RUN_USES, WARM_NODE
from fedagent.errors import FedagentError

ALONE = Path(__file__).with_name("without_a_name.py")


def outcomes(*names: str) -> dict[str, dict]:
    """Run a small simulation for each name, in a Flower that calls it something else."""
    done = subprocess.run(
        [sys.executable, ALONE, *names], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return {line["name"]: line for line in map(json.loads, done.stdout.splitlines())}


REPLACEABLE = [
    "create_empty",
    "TypedDict",
    "_data",
    "_check_key_fn",
    "_check_value_fn",
    "init_defaults",
]
NEEDED = ["TaskIdentity", "_message_id"]


@pytest.fixture(scope="module")
def runs():
    return outcomes("", *REPLACEABLE, "from_numpy_ndarray", *NEEDED)


def test_nothing_is_said_where_nothing_is_missing(runs):
    assert runs[""]["log"] == []
    assert [len(sha256) for sha256 in runs[""]["sha256"]] == [64, 64]


@pytest.mark.parametrize("name", [*REPLACEABLE, "from_numpy_ndarray"])
def test_without_a_name_a_run_gives_the_same_bytes_and_one_warning(runs, name):
    assert runs[name]["sha256"] == runs[""]["sha256"]
    (warning,) = runs[name]["log"]
    assert name in warning
    assert private_use.installed_version() in warning
    assert "checked with 1.41.0 and 1.42.0" in warning
    use = next(u for u in RUN_USES if any(name in str(n) for n in u.names))
    assert use.substitute in warning


@pytest.mark.parametrize("name", NEEDED)
def test_what_has_no_substitute_is_an_error_that_names_version_and_remedy(runs, name):
    assert runs[name]["sha256"] == []
    assert runs[name]["error"].startswith("FedagentError: fedagent cannot use flwr ")
    assert private_use.installed_version() in runs[name]["error"]
    assert "pip install 'flwr==1.42.0'" in runs[name]["error"]


def test_every_name_that_a_run_needs_was_taken_away():
    """Names of one holder are one name here: the fields of an Array are public ones."""
    tried = {*REPLACEABLE, *NEEDED, "from_numpy_ndarray"}
    public = {"dtype", "shape", "stype", "data"}
    for use in RUN_USES:
        for private in use.names:
            parts = set(private.name.split("."))
            assert parts & (tried | public), f"{private} is not taken away by any test"


def test_every_use_is_possible_here_and_says_why_it_is_one():
    for use in USES:
        assert use.missing == (), use.purpose
        assert use.why
        assert use.names
    assert [use for use in USES if use.substitute is None] == [IDENTITY, MESSAGE_IDS, RUN_CONFIG]


@pytest.mark.parametrize(
    "gone",
    [
        PrivateName("flwr.no_such_module", "x"),
        PrivateName("flwr.app", "no_such_name"),
        PrivateName("flwr.app", "Array.no_such_method"),
        PrivateName("flwr.app", "_data", lambda app: app.NoSuchRecord()),
        PrivateName("flwr.app", "_data", lambda app: app.ConfigRecord(1, 2, 3, 4)),
    ],
    ids=str,
)
def test_a_name_is_missing_wherever_the_way_to_it_ends(gone):
    use = PrivateUse("a test", "Just so.", (gone,), "nothing")
    assert use.missing == (str(gone),)
    with pytest.raises(FedagentError, match=f"for a test: it has no {gone}"):
        use.require()


@pytest.mark.parametrize(
    ("version", "checked"),
    [("1.40.9", False), ("1.41.0", True), ("1.42.7", True), ("1.43.0", False), ("2.0", False)],
)
def test_a_release_counts_as_checked_whatever_its_patch_level(version, checked, monkeypatch):
    monkeypatch.setattr(private_use.metadata, "version", lambda name: version)
    assert private_use.is_checked() is checked


def test_an_unknown_version_with_all_the_names_is_no_warning(monkeypatch, caplog):
    monkeypatch.setattr(private_use.metadata, "version", lambda name: "1.44.0")
    monkeypatch.setattr(logging.getLogger("flwr"), "propagate", True)
    announce.cache_clear()
    with caplog.at_level("INFO", "flwr.fedagent"):
        announce(RUN_USES)
        announce(RUN_USES)
    (record,) = caplog.records
    assert record.levelname == "INFO"
    assert record.getMessage().startswith("fedagent was checked with flwr 1.41.0 and 1.42.0, not")
    assert "1.44.0" in record.getMessage()


def test_several_uses_that_lack_something_are_one_warning(monkeypatch, caplog):
    gone = (PrivateName("flwr.app", "gone"),)
    monkeypatch.setattr(logging.getLogger("flwr"), "propagate", True)
    announce.cache_clear()
    with caplog.at_level("INFO", "flwr.fedagent"):
        announce((replace(RECORDS, names=gone), replace(IDENTITY, names=gone)))
    (record,) = caplog.records
    assert "records are filled the public way" in record.getMessage()
    assert "no simulation can begin" in record.getMessage()


def test_the_names_of_the_warm_node_are_not_looked_up_by_a_run():
    assert WARM_NODE not in RUN_USES
    words = "import fedagent.simulation, sys; print('flwr.supernode.cli' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_continuous_integration_runs_every_checked_version():
    jobs = (ALONE.parents[2] / ".github" / "workflows" / "ci.yml").read_text()
    for version in private_use.CHECKED_VERSIONS:
        release = version.rpartition(".")[0]
        assert re.search(rf'flwr: "=={release}\.\*".*checked: true', jobs), version
