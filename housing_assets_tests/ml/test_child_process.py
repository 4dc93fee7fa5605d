"""A child process ends with the one that started it, however that one ends."""

import os
import signal
import subprocess
import sys
import time

import psutil

from housing_assets.ml.child_process import start_child

DEADLINE_SECONDS = 60.0
PARENT = """
import time
from housing_assets.ml.child_process import start_child
if __name__ == "__main__":
    print(start_child(time.sleep, 600).pid, flush=True)
    time.sleep(600)
"""


def leave(code: int) -> None:
    sys.exit(code)


def test_a_child_does_its_work_and_tells_how_it_ended() -> None:
    child = start_child(leave, 3)
    child.join(DEADLINE_SECONDS)
    assert child.exitcode == 3


def test_a_child_does_not_outlive_a_parent_that_is_killed() -> None:
    command = [sys.executable, "-c", PARENT]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        # Time to get to its work, or not: it must end in either case.
        time.sleep(0.5)
        os.kill(parent.pid, signal.SIGKILL)
        _, running = psutil.wait_procs([child], timeout=DEADLINE_SECONDS)
        assert [one for one in running if one.status() != psutil.STATUS_ZOMBIE] == []
