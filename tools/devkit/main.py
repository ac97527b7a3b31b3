# SPDX-License-Identifier: Apache-2.0
"""The verbs of ./dev."""
import argparse
import importlib
import sys

from devkit.common import Failed

VERBS = [
    # verb, module, help
    ("demo", "demo", "build, start everything on this machine, send real mail, show where it went"),
    ("test", "testing", "unit, fuzz-corpus and end-to-end tests under sanitizers"),
    ("build", "build", "compile into build/NAME"),
    ("lint", "lint", "formatting, layers, banned functions, sizes and other house rules"),
    ("fuzz", "fuzz", "short runs of the fuzzers (clang libFuzzer)"),
    ("bench", "bench", "throughput and CPU beside Postfix"),
    ("crash", "crash", "failure experiments: kill -9, power cuts, full disks"),
]


def parser():
    top = argparse.ArgumentParser(
        prog="./dev", description="Work on Koukan.  Each verb first installs the Debian packages "
        "that it needs and that are missing (apt-get, with sudo when you are not root).")
    verbs = top.add_subparsers(dest="verb", metavar="VERB", required=True)
    for name, module, text in VERBS:
        part = importlib.import_module("devkit." + module)
        sub = verbs.add_parser(name, help=text, description=part.__doc__,
                               formatter_class=argparse.RawDescriptionHelpFormatter)
        part.add_arguments(sub)
        sub.set_defaults(main=part.main)
    return top


def main(argv):
    args = parser().parse_args(argv)
    try:
        return args.main(args)
    except Failed as error:
        print(f"./dev: {error}", file=sys.stderr, flush=True)
        return 1
    except KeyboardInterrupt:
        return 130
