# SPDX-License-Identifier: Apache-2.0
"""Runs the tests.

  1. unit tests and fuzz corpora, built with AddressSanitizer and UndefinedBehaviorSanitizer (gcc)
  2. end-to-end tests (tests/e2e) against that binary, and against the release binary where size
     and time are measured; a file of them on each core
  3. failure experiments, the short version (tests/crash, ./dev crash)
  4. the same under ThreadSanitizer: all unit tests, and the end-to-end tests marked `threads`
  5. a compile with clang, whose warnings are errors too

The last line is the sum of everything: `N passed, N failed`."""
import json
import os
import subprocess
import tempfile
import xml.etree.ElementTree

from devkit import build, crash, packages
from devkit.common import JOBS, PYTHON, ROOT, Failed, Stopwatch, Tally, run, say, step

SANITIZER_ENV = {
    "ASAN_OPTIONS": "detect_leaks=1:strict_string_checks=1:detect_stack_use_after_return=1"
                    ":exitcode=99",
    "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
    "LSAN_OPTIONS": "print_suppressions=0:suppressions="
                    + os.path.join(ROOT, "tools", "lsan-suppressions.txt"),
    "TSAN_OPTIONS": "halt_on_error=0:exitcode=99:ignore_noninstrumented_modules=1"
                    ":suppressions=" + os.path.join(ROOT, "tools", "tsan-suppressions.txt"),
}


def count_tap(text, name, tally):
    """Counts the `ok` and `not ok` lines of one test program; how many there were.  cmocka 1.1.5
    calls a skipped test `not ok N # SKIP`."""
    seen = 0
    for line in text.splitlines():
        if not line.startswith(("ok ", "not ok ")):
            continue
        seen += 1
        if "# skip" in line.lower():
            tally.skipped += 1
        elif line.startswith("ok "):
            tally.passed += 1
        else:
            tally.add(False, f"{name}: {line[len('not ok '):]}")
    return seen


def count_meson(log, tally):
    """Adds the outcomes in meson's testlog.json.  Its own verdict is not used where the program
    ended by itself: it takes cmocka's skips for failures."""
    with open(log, encoding="utf-8") as file:
        entries = [json.loads(line) for line in file if line.strip()]
    for entry in entries:
        before = tally.failed
        seen = count_tap(entry.get("stdout") or "", entry["name"], tally)
        code = entry.get("returncode", 1)
        bad = code != 0 or entry["result"] in ("TIMEOUT", "INTERRUPT")
        if bad and tally.failed == before:
            # A crash, a sanitizer report or a timeout: no test line says so.
            tally.add(False, f"{entry['name']}: {entry['result']}, exit code {code}")
        elif not bad and seen == 0:
            tally.add(True, entry["name"])
        if bad:
            say((entry.get("stdout") or "")[-3000:] + (entry.get("stderr") or "")[-6000:])


def unit(setup, pattern=None):
    """All unit tests of a set-up, or those whose name contains `pattern`."""
    tally = Tally()
    where = build.folder(setup)
    names = [entry["name"] for entry in
             json.loads(subprocess.run(["meson", "introspect", "--tests", where], check=True,
                                       stdout=subprocess.PIPE).stdout)]
    if pattern is not None:
        names = [name for name in names if pattern in name]
    if not names:
        return tally
    log = os.path.join(where, "meson-logs", "testlog.json")
    if os.path.exists(log):
        os.unlink(log)
    run([*no_randomisation(setup), "meson", "test", "-C", where, "--no-rebuild",
         "--num-processes", JOBS, "--timeout-multiplier", "3" if setup == "tsan" else "2", "--quiet",
         *names], env=SANITIZER_ENV, check=False)
    if not os.path.exists(log):
        raise Failed("meson test left no log")
    count_meson(log, tally)
    return tally


def no_randomisation(setup):
    """ThreadSanitizer of gcc 12 cannot map its shadow when the kernel randomises more bits than
    it knows; then the address space is not randomised for it."""
    if setup != "tsan":
        return []
    try:
        with open("/proc/sys/vm/mmap_rnd_bits", encoding="ascii") as file:
            bits = int(file.read())
    except OSError:
        bits = 0
    return ["setarch", "-R"] if bits > 28 else []


def count_junit(path, tally):
    for case in xml.etree.ElementTree.parse(path).iter("testcase"):
        name = f"{case.get('classname')}.{case.get('name')}"
        if case.find("skipped") is not None:
            tally.skipped += 1
        else:
            tally.add(case.find("failure") is None and case.find("error") is None, name)


def end_to_end(setup, expression=None, marks=None):
    """pytest over the binary of a set-up."""
    tally = Tally()
    with tempfile.TemporaryDirectory(prefix="koukan-test-") as scratch:
        report = os.path.join(scratch, "report.xml")
        argv = [*no_randomisation(setup), PYTHON, "-B", "-m", "pytest", "-q", "-p",
                "no:cacheprovider", "--tb=short", "--durations=5",
                "--junitxml", report, "--basetemp", os.path.join(scratch, "t"),
                os.path.join(ROOT, "tests", "e2e")]
        if setup != "tsan":  # which keeps more than one core busy with one test
            argv += ["-n", JOBS, "--dist", "loadfile"]
        if expression:
            argv += ["-k", expression]
        if marks:
            argv += ["-m", marks]
        env = dict(SANITIZER_ENV, KOUKAN=build.binary(setup),
                   KOUKAN_RELEASE=build.binary("release"))
        done = run(argv, env=env, check=False)
        if not os.path.exists(report) or done.returncode not in (0, 1, 5):
            tally.add(False, f"pytest: exit code {done.returncode}")
        if os.path.exists(report):
            count_junit(report, tally)
    return tally


def compile_or_fail(setup, tally):
    """A compile counts as one test."""
    try:
        build.build(setup, quiet=True)
        tally.add(True, f"compile {setup}")
        return True
    except Failed as error:
        say(str(error))
        tally.add(False, f"compile {setup}")
        return False


def part(title, tally, work):
    step(title)
    watch = Stopwatch()
    result = work()
    tally.merge(result)
    say(f"-- {title}: {result.line()} ({watch})")


def plan(args, tally):
    address = not args.tsan
    threads = args.tsan or not (args.quick or args.k)
    if address and compile_or_fail("asan", tally):
        part("unit tests, address sanitizer", tally, lambda: unit("asan", args.k))
        if compile_or_fail("release", tally):
            marks = "not slow" if args.quick else None
            part("end to end, address sanitizer", tally,
                 lambda: end_to_end("asan", args.k, marks))
            if not (args.quick or args.k):
                part("failure experiments, short version", tally,
                     lambda: crash.short(build.binary("release")))
    if threads and compile_or_fail("tsan", tally):
        part("unit tests, thread sanitizer", tally, lambda: unit("tsan", args.k))
        part("end to end, thread sanitizer", tally,
             lambda: end_to_end("tsan", args.k, "threads"))
    if not (args.quick or args.k or args.tsan):
        step("compile with clang")
        compile_or_fail("clang", tally)


def add_arguments(parser):
    parser.add_argument("--quick", action="store_true",
                        help="no ThreadSanitizer, no clang, no slow tests")
    parser.add_argument("-k", metavar="EXPR", help="unit tests whose name contains EXPR and "
                        "end-to-end tests that match it (pytest -k); no clang; add --tsan for "
                        "ThreadSanitizer")
    parser.add_argument("--tsan", action="store_true", help="only the ThreadSanitizer part")
    parser.add_argument("--tally", metavar="FILE", help="also write `passed failed skipped` there")


def main(args):
    watch = Stopwatch()
    packages.ensure("build", "test", *([] if args.quick or args.k or args.tsan else ["clang"]))
    packages.unpack(*packages.UNPACKED)
    tally = Tally()
    plan(args, tally)
    say(f"-- all tests: {watch}")
    if args.tally:
        with open(args.tally, "w", encoding="utf-8") as file:
            file.write(f"{tally.passed} {tally.failed} {tally.skipped}\n")
    return tally.close()
