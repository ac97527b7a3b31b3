#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Failure experiments: mail is submitted while something breaks, and at the end each message that
was acknowledged is accounted for.  `./dev crash --help` lists them."""
import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path[:0] = [HERE, os.path.join(ROOT, "tools"), os.path.join(ROOT, "tests", "e2e")]
sys.dont_write_bytecode = True

import database  # noqa: E402
import faults  # noqa: E402
import kills  # noqa: E402
import memory  # noqa: E402
import million  # noqa: E402
import power  # noqa: E402
import replicas  # noqa: E402
import scale  # noqa: E402
from devkit.common import say, step  # noqa: E402
from devkit.procs import Failed  # noqa: E402
from scene import Result, Skip  # noqa: E402

EXPERIMENTS = {
    # name: (function, databases, in the short version)
    "kills": (kills.random_kills, "both", True),
    "syscalls": (kills.syscall_kills, "both", True),
    "sigterm": (kills.sigterm, "both", True),
    "power": (power.power_cut, "sqlite", True),
    "power-control": (power.power_cut_control, "sqlite", True),
    "full": (faults.disk_full, "sqlite", True),
    "errors": (faults.errors, "sqlite", True),
    "locked": (faults.locked, "sqlite", True),
    "memory": (memory.memory, "sqlite", True),
    "restart": (scale.restart, "both", False),
    "million": (million.million, "both", True),
    "db-stop": (replicas.database_stop, "postgresql", True),
    "replicas": (replicas.frozen_replica, "postgresql", True),
}


def listing():
    lines = []
    for name, (function, stores, _) in EXPERIMENTS.items():
        only = "" if stores == "both" else f" ({stores})"
        lines.append(f"  {name:<14} {function.__doc__.splitlines()[0]}{only}")
    return "\n".join(lines)


def add_arguments(parser):
    parser.add_argument("experiments", nargs="*", metavar="EXPERIMENT",
                        help="default: all that suit the database")
    parser.add_argument("--kills", type=int, default=300, metavar="N",
                        help="kills of the experiment `kills`; the others do a share of it (300)")
    parser.add_argument("--store", choices=["sqlite", "postgresql"], default="sqlite")
    parser.add_argument("--short", action="store_true", help="a minute or so, as in ./dev test")
    parser.add_argument("--seed", type=int, help="repeats the choices of a run, not its timing")
    parser.add_argument("--binary", metavar="FILE", help="this one instead of a release build")
    parser.add_argument("--keep", action="store_true", help="keep the scratch folder")
    parser.add_argument("--calls", type=lambda text: text.split(","), metavar="NAME,...",
                        help="syscalls: these instead of the usual ones")
    parser.add_argument("--when", type=lambda text: [int(n) for n in text.split(",")],
                        metavar="N,...", help="syscalls: at these counts")
    parser.add_argument("--queue", type=int, default=100000, metavar="N",
                        help="restart: messages in the queue (100000)")
    parser.add_argument("--messages", type=int, metavar="N",
                        help="replicas: messages in all (20000; 1500 with --short)")
    parser.add_argument("--rows", type=int, default=1000000, metavar="N",
                        help="million: rows in the queue (1000000; 20000 with --short)")


def run_one(name, options):
    function, stores, _ = EXPERIMENTS[name]
    step(f"{name}: {function.__doc__.splitlines()[0]}")
    begin = time.monotonic()
    try:
        if stores not in ("both", options.store):
            raise Skip(f"for {stores}")
        if options.refusal:
            raise Skip(options.refusal)
        result = function(options)
    except Skip as reason:
        result = Result(name)
        result.skipped = str(reason)
    except Failed as error:
        result = Result(name)
        result.fail(str(error)[-3000:])
        options.keep_folder = True
    result.seconds = time.monotonic() - begin
    for problem in result.problems[:20]:
        say(f"{name}: {problem}")
    return result


def table(results):
    step("failure experiments")
    say(f"{'':<15}{'result':<8}{'deaths':>7}{'acked':>8}{'lost':>6}{'alter.':>7}{'dup. by':>8}"
        f"{'dup. by':>8}{'dup. un-':>9}{'bounced':>8}{'queued':>7}{'seconds':>8}")
    say(f"{'':<51}{'death':>8}{'cut':>8}{'explained':>10}")
    for result in results:
        state = "skipped" if result.skipped else "ok" if result.ok else "FAILED"
        line = f"{result.name:<15}{state:<8}"
        verdict = result.verdict
        if verdict is not None:
            line += (f"{result.kills:>7}{verdict.acknowledged:>8}{len(verdict.lost):>6}"
                     f"{len(verdict.altered):>7}{verdict.explained:>8}{verdict.cut:>8}"
                     f"{len(verdict.unexplained):>9}{verdict.bounced:>8}{verdict.queued:>7}")
        say(f"{line:<83}{result.seconds:>8.0f}")
        for text in ([result.skipped] if result.skipped else result.notes):
            say(f"{'':<15}{text}")


def choose(options):
    if options.experiments:
        unknown = [name for name in options.experiments if name not in EXPERIMENTS]
        if unknown:
            raise Failed(f"no experiment {', '.join(unknown)}; there are:\n{listing()}")
        return options.experiments
    return [name for name, (_, stores, short) in EXPERIMENTS.items()
            if stores in ("both", options.store) and (short or not options.short)]


def ask_store(options):
    """Why the binary cannot use the database that was asked for, or None."""
    if options.store == "sqlite":
        return None
    scratch = os.path.join(options.folder, "probe")
    os.makedirs(scratch)
    try:
        cluster = database.Postgres(scratch)
    except Failed as error:
        return str(error)
    try:
        return database.is_refused(cluster.url, options.binary, scratch)
    finally:
        cluster.close()


def run(options):
    """The results, one for each experiment."""
    if options.seed is None:
        options.seed = random.SystemRandom().randrange(1 << 32)
    options.folder = tempfile.mkdtemp(prefix="koukan-crash-")
    os.chmod(options.folder, 0o711)  # another user runs PostgreSQL below it
    options.keep_folder = options.keep
    if options.short:
        options.kills = min(options.kills, 30)
    # So that a harness that is told to end stops its servers and unmounts its file systems.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    say(f"seed {options.seed}, folder {options.folder}, binary {options.binary}")
    try:
        names = choose(options)
        options.refusal = ask_store(options)
        results = [run_one(name, options) for name in names]
        table(results)
        return results
    finally:
        if options.keep_folder:
            say(f"kept: {options.folder}")
        else:
            shutil.rmtree(options.folder, ignore_errors=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, epilog=listing(),
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    options = parser.parse_args()
    if options.binary is None:
        options.binary = os.path.join(ROOT, "build", "release", "koukan")
    try:
        return 0 if all(result.ok for result in run(options)) else 1
    except Failed as error:
        say(str(error))
        return 1


if __name__ == "__main__":
    sys.exit(main())
