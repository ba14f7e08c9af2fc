"""The reference ClientApp: everything is decided by the run config's Hydra overrides."""

from pathlib import Path

from flwr.app import UserConfig

from fedagent.client import ClientSpec, build_client_app
from fedagent.config import build_task, compose, instantiate

CONF = Path(__file__).parents[1] / "conf"


def build(run_config: UserConfig) -> ClientSpec:
    """Return the client that the overrides describe."""
    cfg = compose(str(run_config.get("overrides", "")), CONF)
    client = ClientSpec(
        build_task(cfg), instantiate(cfg.client), str(cfg.device), instantiate(cfg.client_mods)
    )
    return instantiate(cfg.attack).on(client) if cfg.attack else client


app = build_client_app(build)
