"""Every setting is read and put back, and code that changes none pays microseconds."""

import gc
import locale
import logging
import multiprocessing
import os
import signal
import socket
import sys
import time
import warnings

import numpy as np
import pytest
import torch

from fedagent.process.settings import SETTINGS, settings_restored

CHANGES = {
    "default dtype": lambda: torch.set_default_dtype(torch.float64),
    "default device": lambda: torch.set_default_device("meta"),
    "number of threads": lambda: torch.set_num_threads(torch.get_num_threads() + 1),
    "gradients": lambda: torch.set_grad_enabled(False),
    "anomaly detection": lambda: torch.autograd.set_detect_anomaly(True),
    "determinism": lambda: torch.use_deterministic_algorithms(True, warn_only=True),
    "cuDNN's choices": lambda: setattr(torch.backends.cudnn, "benchmark", True),
    "precision of products": lambda: torch.set_float32_matmul_precision("medium"),
    "NumPy's errors": lambda: np.seterr(over="raise"),
    "environment": lambda: os.environ.update(A_NEW_ONE="1", PATH="/nowhere"),
    "working directory": lambda: os.chdir("/"),
    "signal handlers": lambda: signal.signal(signal.SIGUSR1, print),
    "alarm": lambda: signal.alarm(1000),
    "standard streams": lambda: setattr(sys, "stdout", sys.__stderr__),
    "silence of logs": lambda: logging.disable(logging.CRITICAL),
    "warning filters": lambda: warnings.simplefilter("error"),
    "locale": lambda: locale.setlocale(locale.LC_ALL, "C"),
    "recursion limit": lambda: sys.setrecursionlimit(123_456),
    "garbage collection": gc.disable,
    "timeout of sockets": lambda: socket.setdefaulttimeout(1.0),
    "way to start processes": lambda: multiprocessing.set_start_method("spawn", force=True),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_that_is_changed_is_put_back(name):
    setting = SETTINGS[name]
    if name == "locale":
        locale.setlocale(locale.LC_ALL, "C.UTF-8")
    before = setting.read()
    with settings_restored():
        CHANGES[name]()
        assert setting.read() != before
    assert setting.read() == before


def test_a_setting_is_put_back_after_an_exception():
    def change_and_fail():
        os.environ["LEFT_BEHIND"] = "1"
        raise KeyError

    with pytest.raises(KeyError), settings_restored():
        change_and_fail()
    assert "LEFT_BEHIND" not in os.environ


def test_a_deleted_working_directory_is_left(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with settings_restored():
        (tmp_path / "gone").mkdir()
        os.chdir(tmp_path / "gone")
        (tmp_path / "gone").rmdir()
    assert os.getcwd() == str(tmp_path)


def test_the_users_alarm_goes_on():
    signal.setitimer(signal.ITIMER_REAL, 1000)
    try:
        with settings_restored():
            pass
        assert signal.getitimer(signal.ITIMER_REAL)[0] > 900
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def test_code_that_changes_nothing_pays_microseconds():
    def cost_s() -> float:
        begun_s = time.perf_counter()
        with settings_restored():
            pass
        return time.perf_counter() - begun_s

    assert min(cost_s() for _ in range(1000)) < 100e-6


def test_after_code_that_closes_a_stream_printing_is_no_error(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "stdout", (tmp_path / "out").open("w"))
    with settings_restored():
        sys.stdout.close()
    print("lost, and nobody's failure")
