"""The files in server/deploy and clients/deploy name only what is there."""

import configparser
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest
import yaml
from flwr.common.constant import FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
FOLDERS = (ROOT / "server" / "deploy", ROOT / "clients" / "deploy")
COMPOSE = [path for folder in FOLDERS for path in sorted(folder.glob("compose*.yaml"))]
UNITS = [path for folder in FOLDERS for path in sorted(folder.glob("*.service"))]
NGINX = ROOT / "server" / "deploy" / "nginx.conf"
GUIDE = ROOT / "docs" / "deploy.md"
PROGRAMS = {"fedagent", "flwr", "flower-superlink"}


def _id(path):
    return f"{path.parents[1].name}/{path.name}"


@cache
def flags_of(*command):
    """Return the flags that `command --help` lists, of the installed command."""
    program = [str(BIN / command[0])]
    if command[0] == "fedagent":  # this checkout's, wherever the installed script points
        program = [sys.executable, "-c", "from fedagent.cli import main; main()"]
    shown = subprocess.run(
        [*program, *command[1:], "--help"],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
        cwd=ROOT,
        env={"FLWR_TELEMETRY_ENABLED": "0", "COLUMNS": "400", "TERM": "dumb", "HOME": "/nowhere"},
    )
    return set(re.findall(r"--[a-z][a-z-]+", shown.stdout))


def check_flags(words):
    """Fail if a flag in a command line is unknown to the command; return the flags."""
    name, *arguments = words
    command = [Path(name).name]
    if command[0] in ("flwr", "fedagent"):  # their subcommands stand before the first option
        depth = 2 if arguments[0] in ("supernode", "federation", "app") else 1
        command += arguments[:depth]
    flags = {word.partition("=")[0] for word in arguments if word.startswith("--")}
    unknown = flags - flags_of(*command)
    assert not unknown, f"{shlex.join(command)} has no {', '.join(sorted(unknown))}"
    return flags


def _services(path):
    return yaml.safe_load(path.read_text())["services"]


def _merged(folder):
    """Return the services as Compose sees them with the TLS file on top: its commands win."""
    base, over = _services(folder / "compose.yaml"), _services(folder / "compose.tls.yaml")
    return {name: base.get(name, {}) | over.get(name, {}) for name in {**base, **over}}


@pytest.fixture
def unit(request):
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    parser.optionxform = str
    parser.read_string(request.param.read_text().replace("\\\n", ""))
    return parser


# Docker Compose


@pytest.mark.parametrize("path", COMPOSE, ids=_id)
def test_every_command_in_a_compose_file_exists_with_its_flags(path):
    commands = [s["command"] for s in _services(path).values() if "command" in s]
    programs = [command for command in commands if command != ["sleep", "infinity"]]
    for command in programs:
        assert (BIN / command[0]).is_file()
        assert check_flags(command)
    assert programs or path.name == "compose.gpu.yaml"


@pytest.mark.parametrize("path", COMPOSE, ids=_id)
def test_every_file_that_a_compose_file_mounts_or_builds_from_exists(path):
    for service in _services(path).values():
        if build := service.get("build"):
            context = (path.parent / build["context"]).resolve()
            assert context == ROOT
            assert (context / build["dockerfile"]).is_file()
        for volume in service.get("volumes", []):
            if volume.startswith("./"):
                assert (path.parent / volume.split(":")[0]).is_file()


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.parent.name)
def test_with_the_tls_file_nothing_is_left_insecure(folder):
    for service in _merged(folder).values():
        assert "--insecure" not in service.get("command", [])


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.parent.name)
def test_what_a_command_reads_is_mounted(folder):
    for name, service in _merged(folder).items():
        read = re.findall(r"=(/etc/fedagent/\S+)", " ".join(service.get("command", [])))
        mounted = {volume.split(":")[-2] for volume in service.get("volumes", [])}
        assert set(read) <= mounted, name


def test_behind_nginx_the_superlink_is_for_its_own_machine_and_registered_devices():
    command = _merged(FOLDERS[0])["superlink"]["command"]
    assert "--host=127.0.0.1" in command
    assert "--enable-supernode-auth" in command
    assert any(word.startswith("--superexec-auth-secret-file=") for word in command)


def test_secrets_are_not_copied_into_the_image():
    assert "certificates/" in (ROOT / ".dockerignore").read_text().splitlines()
    assert "/certificates/" in (ROOT / ".gitignore").read_text().splitlines()


def test_the_connections_of_the_operator_are_where_the_superlink_listens():
    connections = tomllib.loads((FOLDERS[0] / "config.toml").read_text())["superlink"]
    names = {
        "fleet": _merged(FOLDERS[0]),
        "trusted-network": _services(FOLDERS[0] / "compose.yaml"),
    }
    for name, services in names.items():
        port = connections[name]["address"].rpartition(":")[2]
        assert f"--port={port}" in services["superlink"]["command"]
        runtime = [w for w in services["superexec"]["command"] if "runtime-api-address" in w]
        assert runtime == [f"--runtime-api-address=127.0.0.1:{port}"]


# systemd


@pytest.mark.parametrize("unit", UNITS, ids=_id, indirect=True)
def test_a_unit_runs_an_existing_command_with_flags_that_it_has(unit):
    assert set(unit.sections()) == {"Unit", "Service", "Install"}
    words = shlex.split(unit["Service"]["ExecStart"])
    assert (BIN / Path(words[0]).name).is_file()
    assert check_flags(words)
    assert "--insecure" not in words


@pytest.mark.parametrize("path", UNITS, ids=_id)
def test_a_unit_reads_only_credentials_that_it_loads(path):
    text = path.read_text()
    loaded = re.findall(r"^LoadCredential=(\S+):/etc/fedagent/\1$", text, re.MULTILINE)
    assert set(re.findall(r"%d/([\w.]+)", text)) == set(loaded)


def test_the_variables_of_a_device_are_set_in_its_example():
    example = dict(
        line.split("=", 1)
        for line in (FOLDERS[1] / "supernode.env").read_text().splitlines()
        if "=" in line and not line.startswith("#")
    )
    for name in ("fedagent-supernode.service", "compose.yaml", "compose.tls.yaml"):
        command = (FOLDERS[1] / name).read_text()
        assert set(re.findall(r"=\$\{(\w+)", command)) == set(example), name


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not installed")
def test_systemd_accepts_the_units(tmp_path):
    for path in UNITS:
        text = path.read_text().replace("/opt/fedagent/bin", str(BIN))
        (tmp_path / path.name).write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--recursive-errors=no", *tmp_path.glob("*.service")],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    ours = [line for line in done.stderr.splitlines() if "fedagent" in line]
    assert not ours, done.stderr


# nginx


def _directives(name):
    return re.findall(rf"^\s*{name} +([^;{{]+);", NGINX.read_text(), re.MULTILINE)


def test_nginx_lets_an_object_of_flower_through_and_nothing_that_hurts():
    (limit,) = _directives("client_max_body_size")
    bytes_allowed = int(limit.removesuffix("m")) * 2**20
    assert FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE * 1.5 < bytes_allowed < 50e6


def test_nginx_opens_the_fleet_api_and_closes_the_others():
    blocks = re.findall(r"location ([^{]+) \{([^}]*)\}", NGINX.read_text())
    assert {place for place, block in blocks if "proxy_pass" in block} == {
        "/v1/fleet/",
        "= /health",
    }
    assert dict(blocks)["/"].split() == ["return", "403;"]


def test_nginx_turns_away_with_a_status_after_which_a_supernode_tries_again():
    from flwr.supercore.retry.http_retry import _RETRYABLE_STATUS_CODES

    assert {int(status) for status in _directives("limit_conn_status")} < _RETRYABLE_STATUS_CODES


def test_nginx_listens_where_compose_publishes_and_asks_where_the_superlink_listens():
    assert _directives("listen") == ["9093 ssl"]
    assert any(port.endswith(":9093") for port in _services(COMPOSE[1])["network"]["ports"])
    assert _directives("server") == ["127.0.0.1:8000"]
    assert "--port=8000" in _merged(FOLDERS[0])["superlink"]["command"]


# The guide


def _commands(text):
    for block in re.findall(r"```(?:sh)?\n(.*?)```", text, re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            words = words[1:] if words[:1] == ["sudo"] else words
            if words and Path(words[0]).name in PROGRAMS:
                yield [Path(words[0]).name, *words[1:]]


def test_every_flag_in_the_guide_exists():
    commands = list(_commands(GUIDE.read_text()))
    assert {words[0] for words in commands} == PROGRAMS
    for words in commands:
        check_flags(words)


def test_every_file_in_the_guide_exists():
    names = re.findall(r"(?:server|clients)/deploy/[\w.-]+", GUIDE.read_text())
    assert names
    for name in names:
        assert (ROOT / name).is_file(), name
