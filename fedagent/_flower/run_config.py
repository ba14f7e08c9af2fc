"""Run configurations of Flower Apps, as ``flwr run`` reads them."""

import shlex
from collections.abc import Sequence
from typing import Any, cast

from flwr.app import UserConfig

from fedagent._flower.uses import RUN_CONFIG
from fedagent.errors import ConfigurationError, require, suggestion


def fused_run_config(defaults: dict[str, Any], overrides: Sequence[str]) -> UserConfig:
    """Return an app's run configuration: what its pyproject.toml says, and what replaces it.

    Parameters
    ----------
    defaults : the table ``[tool.flwr.app.config]``; nested tables become keys with dots.
    overrides : values of ``--run-config``: ``key=value`` pairs separated by spaces, or a TOML file.

    Raises
    ------
    ConfigurationError
        If an override cannot be read, or names a key that the app does not have.
    FedagentError
        If this version of Flower reads them in another way.
    """
    RUN_CONFIG.require()
    from flwr.common.config import flatten_dict, parse_config_args  # noqa: PLC0415

    try:
        words = [word for text in overrides for word in shlex.split(text)]
        is_pair = [("=" in word or word.endswith(".toml")) for word in words]
        require(all(is_pair), "each setting is KEY=VALUE")
        known = flatten_dict(defaults)
        told = parse_config_args(list(overrides))
    except Exception as error:  # of Flower's, of its command line's and of TOML's own kinds
        reason = getattr(error, "message", str(error))
        raise ConfigurationError(
            f"--run-config {' '.join(overrides)!r} cannot be read ({reason}); write it as for "
            "flwr run: 'lr=0.1 name=\"a b\"', with text in quotes."
        ) from error
    for key in told:
        require(
            key in known,
            f"--run-config {key}=... is not a setting of this app; {suggestion(key, known)} Its "
            "settings are in [tool.flwr.app.config] of pyproject.toml.",
        )
    return cast(UserConfig, known | told)
