"""TLS, node authentication, a SuperExec with a secret: the files of fedagent certificates."""

import json
import subprocess
import time
from contextlib import ExitStack, suppress

import pytest

from benchmarks.flower_processes import free_port
from fedagent.deployment.certificates import make_certificates, make_node_keys
from fedagent.deployment.doctor.reachability import SuperLink, check_superlink


class SecureFleet:
    """Commands against one SuperLink, with the files in one folder."""

    def __init__(self, flower, folder):
        self.flower, self.folder = flower, folder
        self.address = f"127.0.0.1:{flower.port}"
        self.superlink = SuperLink.at(self.address, folder / "ca.crt")
        (flower.home / "config.toml").write_text(
            f'[superlink]\ndefault = "local"\n\n[superlink.local]\naddress = "{self.address}"\n'
            f'root-certificates = "{folder / "ca.crt"}"\n'
        )

    def command(self, *words):
        return subprocess.run(
            words,
            env=self.flower.environment,
            cwd=self.flower.home,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def node(self, key, *flags):
        return (
            "fedagent",
            "node",
            f"--superlink={self.address}",
            f"--root-certificates={self.folder / 'ca.crt'}",
            f"--auth-supernode-private-key={self.folder / 'nodes' / key}",
            f"--port={free_port()}",
            *flags,
        )

    def wait_until_it_listens(self, process):
        for _ in range(120):
            assert process.poll() is None, process.log.read_text()
            findings = check_superlink(self.superlink)
            if all(finding.status == "ok" for finding in findings):
                return
            time.sleep(0.5)
        raise AssertionError(f"{findings}\n{process.log.read_text()}")


@pytest.mark.slow
def test_registered_devices_train_over_tls_and_an_unregistered_key_is_refused(flower, tmp_path):
    folder, output = tmp_path / "certificates", tmp_path / "output"
    make_certificates(folder, ["superlink.example.org"])
    make_node_keys(folder, ["device-0", "device-1", "stranger"])
    fleet = SecureFleet(flower, folder)
    secret = f"--superexec-auth-secret-file={folder / 'superexec.secret'}"
    with ExitStack() as processes:
        superlink = processes.enter_context(
            flower.process(
                "flower-superlink",
                f"--port={flower.port}",
                f"--ssl-certfile={folder / 'server.crt'}",
                f"--ssl-keyfile={folder / 'server.key'}",
                f"--ssl-ca-certfile={folder / 'ca.crt'}",
                "--enable-supernode-auth",
                "--isolation=process",
                secret,
                f"--database={tmp_path / 'superlink.db'}",
                "--disable-runtime-dependency-installation",
            )
        )
        fleet.wait_until_it_listens(superlink)

        # When it has ended there may be nobody left in its group to end.
        with (
            suppress(ProcessLookupError),
            flower.process(*fleet.node("stranger.key", "--max-retries=1")) as stranger,
        ):
            assert stranger.wait(timeout=300) != 0
        assert "No SuperNode found with the given public key" in superlink.log.read_text()

        processes.enter_context(
            flower.process(
                "flower-superexec",
                f"--runtime-api-address={fleet.address}",
                f"--root-certificates={folder / 'ca.crt'}",
                secret,
            )
        )
        for k in range(2):
            done = fleet.command(
                "flwr", "supernode", "register", str(folder / "nodes" / f"device-{k}.pub"), "local"
            )
            assert "registered successfully" in done.stdout, done.stdout + done.stderr
            processes.enter_context(
                flower.process(
                    *fleet.node(
                        f"device-{k}.key", f"--node-config=partition-id={k} num-partitions=2"
                    )
                )
            )
        log = flower.run(
            "display=false page=false partition=iid local_steps=32 tuned=paper "
            "strategy.buffer_size=2 fleet.num_nodes=2 concurrency=2 prefetch=1 "
            "codec=[topk,int8] codec.down=int8 "  # nodes keep models and residuals between jobs
            f"stopping=target stopping.max_updates=200 target=0.9 output_dir={output}"
        )
        listed = fleet.command("flwr", "supernode", "list", "local", "--format=json")
    assert (output / "summary.json").is_file(), log + superlink.log.read_text()[-3000:]
    summary = json.loads((output / "summary.json").read_text())
    assert summary["final_value"] >= 0.9, log
    assert summary["dispatches"]["applied"] == summary["num_updates"] <= 200
    assert "failed" not in str(summary["dispatches"]), "nodes held what their proxy thought"
    assert summary["bytes_up"] < summary["num_updates"] * 100_000, "a whole model has 488,000"
    nodes = json.loads(listed.stdout)["nodes"]
    assert [node["status"] for node in nodes] == ["online", "online"], "the stranger never joined"
