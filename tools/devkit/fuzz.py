# SPDX-License-Identifier: Apache-2.0
"""Runs each fuzzer of tests/fuzz for a short while (clang libFuzzer, address and undefined
behaviour sanitizers).

New inputs go into build/fuzz-corpus/TARGET, beside the kept ones of tests/fuzz/corpus/TARGET; a
crash leaves its input in build/fuzz-crashes, to be kept as tests/fuzz/corpus/TARGET/NAME."""
import glob
import os
import re
import subprocess

from devkit import build, packages
from devkit.common import ROOT, Failed, Tally, say, step
from devkit.testing import SANITIZER_ENV

CORPUS = os.path.join(ROOT, "tests", "fuzz", "corpus")
LIMITS = ["-timeout=5", "-rss_limit_mb=1024", "-malloc_limit_mb=128", "-max_len=16384"]


def targets():
    paths = glob.glob(os.path.join(ROOT, "tests", "fuzz", "fuzz_*.c"))
    return sorted(os.path.basename(path)[len("fuzz_"):-len(".c")] for path in paths)


def run_one(name, seconds):
    """True when the time passed without a finding.  The log is shown when there is one."""
    grown = os.path.join(ROOT, "build", "fuzz-corpus", name)
    crashes = os.path.join(ROOT, "build", "fuzz-crashes", "")
    os.makedirs(grown, exist_ok=True)
    os.makedirs(crashes, exist_ok=True)
    argv = [os.path.join(build.folder("fuzz"), "tests", "fuzz", "fuzz_" + name), grown]
    seeds = os.path.join(CORPUS, name)
    if os.path.isdir(seeds):
        argv.append(seeds)
    words = os.path.join(ROOT, "tests", "fuzz", "dict", name + ".txt")
    if os.path.exists(words):
        argv.append("-dict=" + words)
    log = os.path.join(build.folder("fuzz"), f"fuzz_{name}.log")
    with open(log, "wb") as out:
        done = subprocess.run([*argv, f"-max_total_time={seconds}",
                               f"-artifact_prefix={crashes}{name}-", "-print_final_stats=1",
                               *LIMITS], check=False, stdin=subprocess.DEVNULL, stdout=out,
                              stderr=out, cwd=ROOT,
                              env=dict(os.environ, **SANITIZER_ENV))
    with open(log, encoding="utf-8", errors="replace") as file:
        text = file.read()
    runs = re.findall(r"number_of_executed_units: (\d+)", text)
    say(f"{name}: {runs[-1] if runs else '?'} inputs")
    if done.returncode != 0:
        say(text[-6000:])
    return done.returncode == 0


def add_arguments(parser):
    parser.add_argument("target", nargs="*", metavar="TARGET",
                        help="only these: " + " ".join(targets()))
    parser.add_argument("--seconds", type=int, default=20, metavar="N",
                        help="for each target (default 20)")


def main(args):
    unknown = [name for name in args.target if name not in targets()]
    if unknown:
        raise Failed("no such target: " + " ".join(unknown))
    packages.ensure("build", "clang")
    names = args.target or targets()
    step(f"fuzz, {args.seconds} s each")
    build.build("fuzz", ["tests/fuzz/fuzz_" + name for name in names], quiet=True)
    tally = Tally()
    for name in names:
        tally.add(run_one(name, args.seconds), name)
    return tally.close()
