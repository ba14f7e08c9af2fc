"""What clients' code may do: each deed gets the reply and the Context, and returns a reply."""

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
import time

import torch
from flwr.app import ArrayRecord

# --- what has no end ------------------------------------------------------------------------------


def sleep_for_ever(*_):
    time.sleep(10_000)


def stop_itself(*_):
    os.kill(os.getpid(), signal.SIGSTOP)


def compute_for_ever(*_):
    while True:
        pass


def ignore_sigterm_and_sleep(*_):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sleep_for_ever()


def close_all_files_and_sleep(*_):
    os.closerange(0, 256)
    sleep_for_ever()


WITHOUT_END = [
    sleep_for_ever,
    stop_itself,
    compute_for_ever,
    ignore_sigterm_and_sleep,
    close_all_files_and_sleep,
]

# --- what ends the process ------------------------------------------------------------------------


def exit_with_a_status(*_):
    os._exit(3)


def touch_no_memory(*_):
    ctypes.string_at(0)


def be_killed(*_):
    os.kill(os.getpid(), signal.SIGKILL)


def be_asked_to_end(*_):
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(10)


def die_while_a_forked_child_lives(*_):
    if os.fork() == 0:
        sleep_for_ever()
    os._exit(3)


def die_while_a_manager_lives(*_):
    multiprocessing.Manager()
    be_killed()


def die_while_a_loader_lives(*_):
    loader = torch.utils.data.DataLoader(range(64), num_workers=2, persistent_workers=True)
    next(iter(loader))
    be_killed()


DEATHS = [
    exit_with_a_status,
    touch_no_memory,
    be_killed,
    be_asked_to_end,
    die_while_a_forked_child_lives,
    die_while_a_manager_lives,
    die_while_a_loader_lives,
]

# --- what is raised -------------------------------------------------------------------------------


class Panic(BaseException):
    """What extensions written in Rust raise."""


class SilentError(Exception):
    def __str__(self):
        raise RuntimeError("no words")


def raise_a_base_exception(*_):
    raise Panic("at the disco")


def exit_from_python(*_):
    sys.exit("enough")


def raise_a_keyboard_interrupt(*_):
    raise KeyboardInterrupt


def raise_what_has_no_words(*_):
    raise SilentError


def raise_fifty_megabytes(*_):
    raise ValueError("x" * 50_000_000)


def forge_lines(*_):
    raise ValueError("\x1b[2J\x1b[31mno\nfedagent: the run is completed\r\u202e")


def recurse_for_ever(*_):
    recurse_for_ever()


RAISES = [
    raise_a_base_exception,
    exit_from_python,
    raise_a_keyboard_interrupt,
    raise_what_has_no_words,
    raise_fifty_megabytes,
    forge_lines,
    recurse_for_ever,
]

# --- what is no reply, or cannot be sent ----------------------------------------------------------


class Unsendable(ArrayRecord):
    def deflate(self):
        raise OSError("it does not travel")


def return_nothing(*_):
    return None


def return_what_cannot_travel(reply, _):
    reply.content["arrays"] = Unsendable()
    return reply


def return_a_reply_without_content(reply, _):
    del reply.__dict__["_content"]
    return reply


def return_a_reply_to_another_message(reply, _):
    reply.metadata.__dict__["_reply_to_message_id"] = "f" * 64
    return reply


def close_all_files(reply, _):
    os.closerange(0, 256)
    return reply


NO_REPLIES = [
    return_nothing,
    return_what_cannot_travel,
    return_a_reply_without_content,
    return_a_reply_to_another_message,
    close_all_files,
]

# --- what leaves its answer right -----------------------------------------------------------------


def fork_and_go_on_in_both(reply, _):
    os.fork()
    return reply


def leave_a_child(reply, _):
    if os.fork() == 0:
        sleep_for_ever()
    return reply


def leave_a_thread(reply, _):
    threading.Thread(target=sleep_for_ever).start()
    return reply


def exit_in_a_thread(reply, _):
    thread = threading.Thread(target=sys.exit, args=(3,))
    thread.start()
    thread.join()
    return reply


def compute_in_parallel(reply, _):
    torch.set_num_threads(2)
    torch.ones(4_000_000).exp().sum()
    return reply


def change_the_process(reply, _):
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    torch.set_num_threads(7)
    os.chdir("/")
    os.environ["HOME"] = "/nowhere"
    os.environ["http_proxy"] = "http://nowhere:1"
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
        signal.signal(number, signal.SIG_IGN)
    sys.setrecursionlimit(100)
    return reply


def close_its_streams(reply, _):
    sys.stdout.close()
    sys.stderr.close()
    for number in (0, 1, 2):
        os.close(number)
    return reply


def print_megabytes(reply, _):
    print("y" * 5_000_000)
    return reply


def spoil_its_context(reply, context):
    context.state = "spoilt"
    return reply


HARMLESS = [
    fork_and_go_on_in_both,
    leave_a_child,
    leave_a_thread,
    exit_in_a_thread,
    compute_in_parallel,
    change_the_process,
    close_its_streams,
    print_megabytes,
    spoil_its_context,
]
GROUPS = [WITHOUT_END, DEATHS, RAISES, NO_REPLIES, HARMLESS]
DEEDS = {deed.__name__: deed for group in GROUPS for deed in group}
