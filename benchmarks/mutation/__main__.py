"""Whether the tests of the pure rooms notice small mistakes, one at a time.

Each mutant is a change of one place (an operator, a number, a missing statement). It meets the
tests that run the function it is in, until one fails. The first time, and after every change of
code or tests, all of them run once to see what each of them runs, which outputs/mutation/ keeps.

The share is of the mutants that matter: those that can be imported, and are not judged to make no
difference (`judged.toml`). With ``--judge FILE`` survivors are appended to a file in that form.

    python -m benchmarks.mutation [--number 150] [--seed 0] [--jobs 2] [--only PATH] [--judge FILE]
"""

import argparse
import os
import sys
from collections import Counter
from pathlib import Path

from benchmarks.machine import print_result
from benchmarks.mutation import judged, rooms, touch
from benchmarks.mutation.mutants import draw
from benchmarks.mutation.trial import Verdict, in_a_fork, run_all


def _record() -> None:
    touch.write(touch.record())


def summarise(verdicts: list[Verdict]) -> dict[str, int | float]:
    """Return how many mutants there were by outcome, and the share noticed of those that matter."""
    reasons, counts = judged.reasons(), Counter(v.outcome for v in verdicts)
    unnoticed = [v for v in verdicts if v.outcome in ("survived", "untested")]
    judged_equal = sum((v.mutant.path, *v.mutant.change) in reasons for v in unnoticed)
    noticed = counts["killed"] + counts["timed out"]
    that_matter = noticed + len(unnoticed) - judged_equal
    return {
        "mutants": len(verdicts),
        "killed": noticed,
        "of_these_timed_out": counts["timed out"],
        "survived": len(unnoticed) - judged_equal,
        "make_no_difference": judged_equal,
        "cannot_be_imported": counts["cannot be imported"],
        "share": round(noticed / that_matter, 4) if that_matter else 1.0,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--number", type=int, default=150, help="of mutants; default 150")
    parser.add_argument("--seed", type=int, default=0, help="of the sample; default 0")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="at a time")
    parser.add_argument("--only", default="", help="files whose path begins so")
    parser.add_argument("--judge", type=Path, help="a file to append survivors to")
    options = parser.parse_args()

    os.nice(10)
    if not touch.file().exists():
        in_a_fork(_record)
    paths = [path for path in rooms.sources() if path.startswith(options.only)]
    mutants = draw(paths, options.number, options.seed)
    reasons, verdicts = judged.reasons(), []
    for verdict in run_all(mutants, touch.read(), options.jobs):
        verdicts.append(verdict)
        if len(verdicts) % 20 == 0:
            print(f"{len(verdicts)} of {len(mutants)}", file=sys.stderr)
        known = reasons.get((verdict.mutant.path, *verdict.mutant.change))
        if verdict.outcome in ("survived", "untested"):
            print(
                f"{verdict.outcome}: {verdict.mutant}" + (f"  ({known})" if known else ""),
                flush=True,
            )
            if options.judge and not known:
                with options.judge.open("a") as stream:
                    stream.write(judged.entry(verdict.mutant) + "\n")
    print_result(
        "mutation", summarise(verdicts), seed=options.seed, jobs=options.jobs, only=options.only
    )


if __name__ == "__main__":
    main()
