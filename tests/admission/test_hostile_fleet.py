"""A thousand hostile encoded replies, and a proxy with little memory: nothing comes of them."""

import json
import subprocess
import sys

import pytest

from tests.admission.hostile_fleet import CODECS
from tests.admission.test_fuzz import SIZE

NUMBER = 100 * SIZE


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS and /proc are Linux's")
def test_hostile_encoded_replies_crash_nothing_change_nothing_and_are_all_counted():
    done = subprocess.run(
        [sys.executable, "-m", "tests.admission.hostile_fleet", str(NUMBER)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    by_codec = json.loads(done.stdout.splitlines()[-1])
    assert by_codec.pop("limit_holds"), "the control"
    assert by_codec.keys() == set(map(str, CODECS))
    assert sum(found["sent"] for found in by_codec.values()) >= NUMBER
    for codec, found in by_codec.items():
        outcomes = found["outcomes"]
        assert found["is_unchanged"], (codec, outcomes)
        refused = sum(n for how, n in outcomes.items() if how.startswith(("rejected", "failed")))
        assert refused >= NUMBER // len(CODECS), (codec, outcomes)
        at_the_end = outcomes["expired(run-ended)"]
        assert 0 <= found["sent"] - refused <= at_the_end, "each is counted"
        assert not any(how.startswith("failed") for how in outcomes), outcomes
        assert found["versions"] == outcomes["applied"] > 0, "honest nodes go on"
