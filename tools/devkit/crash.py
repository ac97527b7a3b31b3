# SPDX-License-Identifier: Apache-2.0
"""Failure experiments: mail is submitted by SMTP and REST while the server is killed, the power is
cut, the disk is full or the database is away; at the end every message that was acknowledged is
accounted for.  A message is

  lost         acknowledged, but neither at the next hop, nor in the queue, nor bounced
  altered      at the next hop with other bytes than were submitted (added Received fields aside)
  duplicated   twice at the next hop: explained when the process that delivered it died within 2 s
               of the next hop's 250, or when the next hop cut the connection before its 250
  bounced, queued

Exit code 1 when something is lost, altered or duplicated without such an explanation, or when an
experiment's own condition is not met.  Loopback only; power cuts and full disks need root (mount)."""
import argparse
import os
import sys

from devkit import build, packages
from devkit.common import ROOT, Failed, Tally, say

FOLDER = os.path.join(ROOT, "tests", "crash")


def harness():
    """tests/crash/run.py as a module."""
    if FOLDER not in sys.path:
        sys.path[:0] = [FOLDER, os.path.join(ROOT, "tests", "e2e")]
    import run
    return run


def short(binary):
    """The short version, one counted test for each experiment."""
    packages.ensure("crash")
    tally = Tally()
    parser = argparse.ArgumentParser()
    harness().add_arguments(parser)
    options = parser.parse_args(["--short", "--binary", binary])
    try:
        results = harness().run(options)
    except Failed as error:
        say(str(error))
        tally.add(False, "crash")
        return tally
    for result in results:
        if result.skipped:
            tally.skipped += 1
        else:
            tally.add(result.ok, f"crash.{result.name}")
    return tally


def add_arguments(parser):
    harness().add_arguments(parser)
    parser.description = __doc__ + "\n\nexperiments:\n" + harness().listing()


def main(args):
    packages.ensure("build", "crash")
    if args.binary is None:
        build.build("release", ["koukan"], quiet=True)
        args.binary = build.binary("release")
    return 0 if all(result.ok for result in harness().run(args)) else 1
