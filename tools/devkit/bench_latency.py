# SPDX-License-Identifier: Apache-2.0
"""`latency`: from the last byte of a client's final dot to the last byte of the 250, each message
through X to a next hop that answers at once (smtp-sink); what X is, see `relay`.  Sessions are
threads with blocking sockets (tests/bench/latency.c) and keep their connection; between two
messages each waits --pause-ms, so that the machine is not saturated; with 0 it is.  `nothing` is
smtp-sink itself: what the kernel and the scheduler take.  Milliseconds; p50 and p99 are medians of
the rounds, the greatest is that of all."""
import os
import statistics
import subprocess

from devkit import build, packages, procs
from devkit.bench import subjects
from devkit.common import Failed, say, step

PROBER = os.path.join("tests", "bench", "bench-latency")


def probe(prober, subject, args):
    """All times of a round, sorted, in milliseconds."""
    each = max(1, args.messages // args.sessions)
    before = subject.sink.count()
    done = subprocess.run([prober, "127.0.0.1", str(subject.port), str(args.sessions), str(each),
                           str(args.size), str(args.pause_ms)], check=False,
                          stdout=subprocess.PIPE)
    times = sorted(int(line) / 1000 for line in done.stdout.split())
    if done.returncode != 0 or len(times) != each * args.sessions:
        raise Failed(f"{subject.name}: a session was refused or cut\n"
                     + "\n".join(server.tail(2000) for server in subject.servers))
    procs.wait_until(lambda: subject.sink.count() - before >= len(times), "all messages")
    return times


def percentile(times, part):
    return times[min(len(times) - 1, int(len(times) * part))]


def table(made, rounds, args):
    say(f"{'':<10}{'p50 ms':>10}{'p99 ms':>10}{'greatest':>10}{'p50 beyond nothing':>20}")
    direct = None
    for subject in made:
        all_rounds = rounds[subject.name]
        p50, p99 = (statistics.median(percentile(times, part) for times in all_rounds)
                    for part in (0.5, 0.99))
        if subject.name == "nothing":
            direct = p50
        beyond = f"{p50 - direct:.3f}" if direct is not None else "-"
        say(f"{subject.name:<10}{p50:>10.3f}{p99:>10.3f}"
            f"{max(times[-1] for times in all_rounds):>10.3f}{beyond:>20}")
    say(f"{args.rounds} rounds of {args.messages} messages of {args.size} bytes, {args.sessions} "
        f"sessions, {args.pause_ms} ms between the messages of a session; {os.cpu_count()} cores")


def latency(args):
    args.sessions = args.sessions or 10
    packages.ensure("build", "bench")
    binary = args.binary or build.binary("release")
    where = build.build("release", [PROBER, *([] if args.binary else ["koukan"])], quiet=True)
    prober = os.path.join(where, PROBER)
    group = procs.Group("koukan-bench-")
    try:
        made = subjects(args, group, binary)
        rounds = {subject.name: [] for subject in made}
        for number in range(args.rounds + 1):
            for subject in made:
                times = probe(prober, subject, args)
                if number == 0:
                    continue  # warm
                rounds[subject.name].append(times)
                say(f"round {number} {subject.name:<8} p50 {percentile(times, 0.5):7.3f} "
                    f"p99 {percentile(times, 0.99):7.3f} ms")
        step("latency")
        table(made, rounds, args)
        return 0
    finally:
        group.close()
