"""What a simulation changes in its process is not missed, and undone at the end."""

import gc
import subprocess
import sys

import pytest
import torch
from flwr.app import Array
from torch.profiler import ProfilerActivity, profile, record_function

from fedagent.simulation.process_tuning import (
    no_idle_compiler,
    no_idle_marks,
    old_objects_left_alone,
    process_tuned,
)

FAULTS = """
import resource
import torch
from fedagent.simulation.process_tuning import keep_freed_memory

{before}
for _ in range(3):
    torch.ones(2_000_000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(50):
    torch.ones(2_000_000), torch.ones(3_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(before: str = "") -> int:
    done = subprocess.run(
        [sys.executable, "-c", FAULTS.format(before=before)],
        check=True,
        capture_output=True,
        text=True,
        env={"MALLOC_MMAP_THRESHOLD_": "131072"},  # as if nothing had been freed yet
    )
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_memory_that_was_freed_is_used_again():
    assert faults("keep_freed_memory()") < 10_000 < faults()


def a_step():
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(torch.ones(2)).backward()
    optimizer.step()
    optimizer.zero_grad()


def marks_of(work) -> list[str]:
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        work()
    return sorted(e.name for e in profiler.events() if e.name.startswith("Optimizer"))


def test_a_profiler_that_is_on_finds_every_mark():
    expected = marks_of(a_step)
    assert expected
    with no_idle_marks():
        assert marks_of(a_step) == expected


WITHOUT_COMPILER = """
import sys
import torch
from fedagent.simulation.process_tuning import process_tuned

def train(kind):
    torch.manual_seed(1)
    model = torch.nn.Linear(3, 2)
    optimizer = kind(model.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.ones(3)).square().sum().backward()
        optimizer.step()
    assert all(value.requires_grad for value in model.parameters())
    return [value.detach().clone() for value in model.parameters()], optimizer.state_dict()

def step_that_is_differentiable():
    start = torch.ones(1, requires_grad=True)
    value = start * 1.0
    value.grad = torch.ones(1)
    torch.optim.SGD([value], lr=0.1, differentiable=True).step()
    return value

kinds = [torch.optim.SGD, torch.optim.AdamW, torch.optim.RMSprop]
with process_tuned():
    tuned = [train(kind) for kind in kinds]
    assert "AddBackward" in str(step_that_is_differentiable().grad_fn)
    is_imported = "torch._dynamo" in sys.modules
    compiled = torch.compile(torch.nn.Linear(3, 2), backend="eager")
    compiled(torch.ones(3))
    again = [train(kind) for kind in kinds]
print(is_imported, str(tuned) == str(again) == str([train(kind) for kind in kinds]))
"""


def test_optimizers_do_the_same_without_the_compiler_until_something_is_compiled():
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_COMPILER], check=True, capture_output=True, text=True
    )
    assert done.stdout.split() == ["False", "True"]


def test_optimizers_are_as_before_at_the_end():
    before = dict(vars(torch.optim.Optimizer))
    with no_idle_compiler():
        assert dict(vars(torch.optim.Optimizer)) != before
    assert dict(vars(torch.optim.Optimizer)) == before


def test_no_mark_is_made_while_no_profiler_is_on(monkeypatch):
    def refuse(*arguments):
        raise AssertionError("a mark for nobody")

    with no_idle_marks():
        monkeypatch.setattr(record_function, "__enter__", refuse)
        a_step()
    with pytest.raises(AssertionError, match="nobody"):
        a_step()


def test_functions_can_still_be_marked_and_everything_is_undone():
    torchs_own = torch.autograd.profiler.record_function
    with no_idle_marks():

        @torch.autograd.profiler.record_function("Optimizer of mine")
        def work():
            return 5

        assert work() == 5
        assert marks_of(work) == ["Optimizer of mine"]
    assert torch.autograd.profiler.record_function is torchs_own


RESIDENT = """
import torch
from fedagent.simulation.process_tuning import freed_memory_kept, keep_freed_memory

def resident_mb():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 / 1e6

before = resident_mb()
with freed_memory_kept():
    blocks = [torch.ones(1_000_000) for _ in range(40)]
    last = torch.ones(1)  # above the blocks in the heap
    del blocks
    kept = resident_mb() - before
print(kept > 100, resident_mb() - before < 50)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_memory_kept_during_a_run_is_given_back_at_its_end():
    done = subprocess.run(
        [sys.executable, "-c", RESIDENT], check=True, capture_output=True, text=True
    )
    assert done.stdout.split() == ["True", "True"]


def global_patches():
    return torch.autograd.profiler.record_function, vars(Array)["from_numpy_ndarray"]


@process_tuned()
def failing_run(before):
    assert gc.get_freeze_count() > 0
    assert all(a is not b for a, b in zip(global_patches(), before, strict=True))
    raise RuntimeError("the run fails")


def test_all_that_can_be_undone_is_undone_even_after_an_error():
    before = global_patches()
    with pytest.raises(RuntimeError, match="the run fails"):
        failing_run(before)
    assert global_patches() == before
    assert gc.get_freeze_count() == 0


def test_what_the_caller_froze_stays_frozen():
    gc.freeze()
    try:
        with old_objects_left_alone():
            pass
        assert gc.get_freeze_count() > 0
    finally:
        gc.unfreeze()
