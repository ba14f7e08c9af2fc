"""The reference ServerApp: everything is decided by the run config's Hydra overrides."""

import logging
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import Strategy
from omegaconf import DictConfig, OmegaConf
from torch import nn

from clients.app import build
from fedagent import AsyncStrategy, keys
from fedagent.admission.filters import TrustedSet
from fedagent.callbacks import LiveDisplay
from fedagent.client import LocalTraining, TrustedTraining, resolve_device, train
from fedagent.config import build_task, compose, instantiate
from fedagent.errors import FedagentError, RunStalledError, must_fit, one_of, require
from fedagent.grids import clock_of
from fedagent.journal import Checkpoints
from fedagent.proxy.server_evaluation import EvaluateFn
from fedagent.report import Exhibits, Recorder
from fedagent.report.beginning import begun_with
from fedagent.report.folder import CONFIG_FILE, next_free, require_free
from fedagent.report.page.beside import WatchedRun
from fedagent.report.page.write import PageAtEnd
from fedagent.report.resuming import CHECKPOINTS, remember_words, require_same_words
from fedagent.report.run_log import RunLog
from fedagent.stopping import Baseline
from fedagent.tasks.showcase import Showcase
from fedagent.tasks.task import Task

CONF = Path(__file__).parents[1] / "conf"

app = ServerApp()
logger = logging.getLogger("flwr.fedagent")


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Compose the configuration, build task and strategy, and train."""
    words = str(context.run_config.get("overrides", ""))
    cfg = compose(words, CONF)
    if cfg.resume is not None:
        require_same_words(Path(cfg.resume), words)
    output_dir = run_folder(cfg)
    cfg.output_dir = str(output_dir)  # monitors may write there too
    torch.manual_seed(cfg.seed)
    task = build_task(cfg)
    task.num_examples(0)  # data or partition that cannot work should fail here, not on every node
    build(context.run_config)  # so should a client that no node could build
    for remark in task.remarks():
        logger.warning(remark)
    stopping = instantiate(cfg.stopping)
    must_fit("target", cfg.target, float | None, "config.yaml")
    about = OmegaConf.to_container(cfg.about)
    goal = task.metric, cfg.target
    to_beat = baseline(cfg, task)
    limits = {
        "updates": stopping.max_updates,
        "versions": stopping.max_versions,
        "seconds": stopping.max_seconds,
    }
    told = begun_with(words, OmegaConf.to_container(cfg), **limits)
    callbacks = [Recorder(output_dir, *goal, about, cfg.overwrite, to_beat, told)]
    callbacks.append(RunLog(output_dir))
    saving = checkpoints(cfg, output_dir, grid)
    if cfg.live:
        callbacks.append(WatchedRun(output_dir))
    if cfg.display:
        callbacks.append(LiveDisplay(*goal, stopping.max_updates, baseline=to_beat))
    if cfg.showcase:
        callbacks.append(Exhibits(output_dir, show(cfg, task)))
    if cfg.page:
        callbacks.append(PageAtEnd(output_dir))
    callbacks += instantiate(cfg.monitor).values()
    conditions = stopping.conditions(task.metric, cfg.target)
    strategy = instantiate(
        cfg.strategy, callbacks=callbacks, stopping=conditions, checkpoint=saving
    )
    protect(cfg, task, strategy)
    if saving is not None:
        remember_words(output_dir, words)
    result = strategy.start(
        grid=grid,
        initial_arrays=initial_arrays(cfg, task),
        num_rounds=stopping.max_rounds or 1_000_000,
        timeout=cfg.timeout_s,
        train_config=ConfigRecord(
            {keys.LOCAL_STEPS: cfg.local_steps, keys.LEARNING_RATE: cfg.learning_rate}
        ),
        evaluate_fn=evaluate_centrally(cfg, task),
    )
    if result.end.has_failed:  # all files are written; whoever started the run should know
        raise RunStalledError(
            f"The run {result.end}. Its files so far are in {output_dir}; nodes that never answer, "
            "and a timeout_s that is too short for them, are the usual causes."
        )


def run_folder(cfg: DictConfig) -> Path:
    """Return the folder that the configuration names, or one named by date and time, with it."""
    if cfg.resume is not None:
        return Path(cfg.resume)
    if cfg.output_dir is not None:
        return require_free(Path(cfg.output_dir), cfg.overwrite)
    folder = next_free(Path(f"outputs/{datetime.now():%Y-%m-%d/%H-%M-%S}"))
    OmegaConf.save(cfg, folder / CONFIG_FILE)
    return folder


def checkpoints(cfg: DictConfig, folder: Path, grid: Grid) -> Checkpoints | None:
    """Return when the run is saved, and whether it goes on from what was; None for never.

    Raises
    ------
    ConfigurationError
        If it is to go on from what it would not save.
    """
    goes_on = cfg.resume is not None
    is_wanted = cfg.checkpoint and (cfg.checkpoint.in_simulation or not clock_of(grid).is_virtual)
    require(
        is_wanted or not goes_on,
        f"resume={cfg.resume}: with checkpoint=off nothing is saved, and with checkpoint=real a "
        "run on a real fleet only, which goes on with flwr run and its own words; see "
        "docs/reliability.md.",
    )
    if not is_wanted:
        return None
    kept: Checkpoints = instantiate(cfg.checkpoint, folder=folder / CHECKPOINTS, resume=goes_on)
    return kept


def protect(cfg: DictConfig, task: Task, strategy: Strategy) -> None:
    """Give filters that compare with the server's own training examples that they trust.

    Raises
    ------
    ConfigurationError
        If Flower's own rounds are asked for what they do not have.
    """
    asked = sorted(key for key in cfg.about if key.split(".")[0] in ("robust", "filters", "secure"))
    require(
        not asked or isinstance(strategy, AsyncStrategy),
        f"{', '.join(asked)}: {type(strategy).__name__} runs Flower's own rounds, in which nothing "
        "of it works; take a strategy without rounds, or Flower's robust one for its own.",
    )
    for each in strategy.options.robust.gate.filters if isinstance(strategy, AsyncStrategy) else ():
        if isinstance(each, TrustedSet) and each.step is None:
            each.step = TrustedTraining(task, instantiate(cfg.client), seed=cfg.seed)


def initial_arrays(cfg: DictConfig, task: Task) -> ArrayRecord:
    """Return version 0: fresh, or warmed up centrally for ``pretrain_steps``."""
    model = task.build_model()
    if cfg.pretrain_steps:
        require(
            not task.private,
            f"pretrain_steps={cfg.pretrain_steps} trains in one place what {type(task).__name__} "
            "keeps on its nodes; set pretrain_steps=0.",
        )
        device = resolve_device(cfg.device)
        training: LocalTraining = instantiate(cfg.client, local_steps=cfg.pretrain_steps)
        batches = task.public_batches(training.batch_size)
        train(task, model.to(device), batches, training, device)
    return ArrayRecord(task.split_state(model.cpu().state_dict())[0])


def baseline(cfg: DictConfig, task: Task) -> Baseline | None:
    """Return what there is to beat on the test split of the data in use, if that is wanted.

    A baseline that cannot be computed is a warning: the run does not need it.
    """
    if not cfg.baseline or cfg.evaluate_on != "test":
        return None
    try:
        with torch.random.fork_rng(devices=[]):
            return Baseline(task.baseline_name, float(task.baseline()[task.metric.name]))
    except FedagentError as error:
        reason: object = error
    except Exception as error:  # an application's own code
        reason = repr(error)
    logger.warning("The run goes on without a baseline (%s): %s", task.baseline_name, reason)
    return None


def evaluate_centrally(cfg: DictConfig, task: Task) -> EvaluateFn:
    """Return Flower's evaluate_fn for the task's test split, or for all validation splits."""
    evaluations = {"test": task.evaluate, "validation": task.validate}
    one_of("evaluate_on", cfg.evaluate_on, tuple(evaluations))
    device = resolve_device(cfg.device)
    filled = model_on(device, task)

    def evaluate(version: int, arrays: ArrayRecord) -> MetricRecord:
        return MetricRecord(dict(evaluations[cfg.evaluate_on](filled(arrays), device)))

    return evaluate


def show(cfg: DictConfig, task: Task) -> Callable[[ArrayRecord], Showcase]:
    """Return what makes an application's pictures and texts of a model."""
    device = resolve_device(cfg.device)
    return lambda arrays: task.shown(model_on(device, task)(arrays), device)


def model_on(device: torch.device, task: Task) -> Callable[[ArrayRecord], nn.Module]:
    """Return what puts arrays into one model, whose private part nobody has trained."""
    model = task.build_model().to(device)
    others = task.split_state(model.state_dict())[1]

    def filled(arrays: ArrayRecord) -> nn.Module:
        model.load_state_dict(arrays.to_torch_state_dict() | others)
        return model

    return filled
