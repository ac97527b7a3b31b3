# SPDX-License-Identifier: Apache-2.0
"""./dev build: the meson set-ups, each in build/NAME."""
import os

from devkit import packages
from devkit.common import JOBS, ROOT, run, say, step

SANITIZED = ["-Dbuildtype=debug", "-Doptimization=1", "-Db_lundef=false"]
SETUPS = {
    # name: (compiler, meson arguments, packages)
    "release": ("gcc", ["-Dbuildtype=release"], ["build"]),
    "debug": ("gcc", ["-Dbuildtype=debug"], ["build"]),
    "asan": ("gcc", [*SANITIZED, "-Db_sanitize=address,undefined"], ["build"]),
    "tsan": ("gcc", [*SANITIZED, "-Db_sanitize=thread"], ["build"]),
    "clang": ("clang", ["-Dbuildtype=debug"], ["build", "clang"]),
    "fuzz": ("clang", [*SANITIZED, "-Db_sanitize=address,undefined", "-Dtests=false",
                       "-Dfuzz=true", "-Dc_args=-fsanitize=fuzzer-no-link"], ["build", "clang"]),
}


def folder(name):
    return os.path.join(ROOT, "build", name)


def binary(name):
    return os.path.join(folder(name), "koukan")


def build(name, targets=(), quiet=False):
    """Sets up when needed, compiles `targets` (default: all); returns the folder."""
    compiler, arguments, sets = SETUPS[name]
    packages.ensure(*sets)
    where = folder(name)
    if not os.path.exists(os.path.join(where, "build.ninja")):
        run(["meson", "setup", where, ROOT, *arguments], env={"CC": compiler}, quiet=True)
    run(["ninja", "-C", where, "-j", JOBS, *targets], quiet=quiet)
    return where


def add_arguments(parser):
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--release", dest="setup", action="store_const", const="release",
                       help="optimised, gcc (the default)")
    group.add_argument("--debug", dest="setup", action="store_const", const="debug",
                       help="for a debugger, gcc")
    group.add_argument("--asan", dest="setup", action="store_const", const="asan",
                       help="AddressSanitizer and UndefinedBehaviorSanitizer, gcc")
    group.add_argument("--tsan", dest="setup", action="store_const", const="tsan",
                       help="ThreadSanitizer, gcc")
    group.add_argument("--clang", dest="setup", action="store_const", const="clang",
                       help="clang, for its warnings")
    parser.set_defaults(setup="release")


def main(args):
    step(f"build {args.setup}")
    build(args.setup)
    say(binary(args.setup))
    return 0
