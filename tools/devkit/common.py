# SPDX-License-Identifier: Apache-2.0
"""What every verb needs: the root of the tree, running commands, counting outcomes."""
import os
import shlex
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PYTHON = "/usr/bin/python3"
JOBS = str(min(os.cpu_count() or 1, 4))


class Failed(Exception):
    """A step that cannot go on; the text is for the user."""


def say(text=""):
    print(text, flush=True)


def step(title):
    say(f"== {title}")


def run(argv, *, cwd=ROOT, env=None, quiet=False, check=True, timeout=None):
    """Runs a command, its output passed through; with `quiet` shown only when it fails."""
    full_env = dict(os.environ, **(env or {}))
    if not quiet:
        say("$ " + shlex.join(argv))
    done = subprocess.run(argv, cwd=cwd, env=full_env, timeout=timeout, check=False,
                          stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE if quiet else None,
                          stderr=subprocess.STDOUT if quiet else None)
    if done.returncode != 0 and check:
        if quiet:
            sys.stdout.write(done.stdout.decode("utf-8", "replace"))
        raise Failed(f"{shlex.join(argv)}: exit code {done.returncode}")
    return done


def output(argv, *, cwd=ROOT):
    return subprocess.run(argv, cwd=cwd, check=True, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE).stdout.decode("utf-8", "replace")


def tracked_files():
    """Files of the project: what git knows or would add; deleted ones left out."""
    listing = output(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"])
    names = sorted(set(name for name in listing.split("\0") if name))
    return [name for name in names if os.path.isfile(os.path.join(ROOT, name))]


def read_text(name):
    with open(os.path.join(ROOT, name), encoding="utf-8", errors="replace") as file:
        return file.read()


class Tally:
    """Counts of passed, failed and skipped, and what failed."""

    def __init__(self):
        self.passed = self.failed = self.skipped = 0
        self.failures = []

    def add(self, ok, name):
        if ok:
            self.passed += 1
        else:
            self.failed += 1
            self.failures.append(name)

    def merge(self, other):
        self.passed += other.passed
        self.failed += other.failed
        self.skipped += other.skipped
        self.failures += other.failures

    def line(self):
        text = f"{self.passed} passed, {self.failed} failed"
        return text + (f", {self.skipped} skipped" if self.skipped else "")

    def close(self):
        """Prints what failed and the closing line; the exit code."""
        for name in self.failures:
            say(f"FAILED {name}")
        say(self.line())
        return 1 if self.failed else 0


class Stopwatch:
    def __init__(self):
        self.start = time.monotonic()

    def __str__(self):
        return f"{time.monotonic() - self.start:.0f} s"
