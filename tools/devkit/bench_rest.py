# SPDX-License-Identifier: Apache-2.0
"""`rest`: messages submitted by REST, inline, each stored and flushed before its 201, then delivered
by SMTP.

  serve        koukan serve, an SQLite file; the load is tests/bench/submit.c (connections that stay
               open, one request at a time on each), the next hop smtp-sink

Submitted/s counts from the first request until the last 201, delivered/s until smtp-sink has taken
the last message.  p50 and p99 are milliseconds from a request's first byte to its 201's last.  CPU
is the server's for each message, submission and delivery together; load and sink, which share the
machine, stand beside it.  Commit is the mean time of the store's commits, and the jobs of each: a
201 waits for the commit under way and for its own, so on a disk whose flushes are slow its time is
that of two flushes."""
import os
import re
import resource
import statistics
import string
import subprocess
import time
import urllib.request

from devkit import build, packages, procs
from devkit.bench import CONFIGS, Sink
from devkit.bench_latency import percentile
from devkit.common import Failed, say, step

CLIENT = os.path.join("tests", "bench", "bench-submit")


class Round:
    def __init__(self, **figures):
        self.__dict__.update(figures)


def start(group, binary, hop_port):
    folder = os.path.join(group.folder, "serve")
    os.makedirs(folder)
    values = {"folder": folder, "hop_port": hop_port, "gateway_port": procs.free_port(),
              "router_port": procs.free_port(),
              "url": "sqlite:///" + os.path.join(folder, "queue.db")}
    paths = []
    for config in ("store-gateway.yaml", "rest-router.yaml"):
        with open(os.path.join(CONFIGS, config), encoding="utf-8") as file:
            text = string.Template(file.read()).substitute(values)
        paths.append(os.path.join(folder, config))
        with open(paths[-1], "w", encoding="utf-8") as file:
            file.write(text)
    server = group.add(procs.Server("serve", binary, ["serve", *paths], folder))
    server.wait_ready()
    server.rest_port = values["router_port"]
    return server


def store_figures(server):
    """(commits, seconds of them all, jobs of them all), from /metrics."""
    url = f"http://127.0.0.1:{server.rest_port}/metrics"
    with urllib.request.urlopen(url, timeout=30) as answer:
        text = answer.read().decode()
    return [float(re.search(rf"^koukan_store_{name} (\S+)$", text, re.M).group(1))
            for name in ("commit_seconds_count", "commit_seconds_sum", "batch_jobs_sum")]


def children_cpu():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def one_round(client, server, sink, args):
    before, store = sink.count(), store_figures(server)
    cpu = [procs.cpu_seconds(server.pid), procs.cpu_seconds(sink.proc.pid), children_cpu()]
    begin = time.monotonic()
    done = subprocess.run([client, "127.0.0.1", str(server.rest_port), str(args.sessions),
                           str(args.messages), str(args.size)], check=False,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    submitted = time.monotonic() - begin
    times = sorted(int(line) / 1000 for line in done.stdout.split())
    if done.returncode != 0 or len(times) != args.messages:
        raise Failed(f"{len(times)} of {args.messages} submitted: {done.stderr.decode()[-500:]}\n"
                     + server.tail(2000))
    procs.wait_until(lambda: sink.count() - before >= args.messages, "all messages in the sink",
                     120, alive=server)
    delivered = time.monotonic() - begin
    after = [procs.cpu_seconds(server.pid), procs.cpu_seconds(sink.proc.pid), children_cpu()]
    cpu = [(b - a) * 1000 / args.messages for a, b in zip(cpu, after)]
    commits, seconds, jobs = [b - a for a, b in zip(store, store_figures(server))]
    return Round(submitted=args.messages / submitted, delivered=args.messages / delivered,
                 p50=percentile(times, 0.5), p99=percentile(times, 0.99), greatest=times[-1],
                 cpu=cpu[0], sink=cpu[1], client=cpu[2], commit=seconds * 1000 / commits,
                 jobs=jobs / commits)


def table(rounds, args):
    step("rest")
    say(f"{'':<10}{'submitted/s':>12}{'delivered/s':>13}{'p50 ms':>9}{'p99 ms':>9}"
        f"{'CPU ms/msg':>12}{'load':>8}{'sink':>8}{'commit ms':>11}{'jobs':>7}")

    def middle(name):
        return statistics.median(getattr(each, name) for each in rounds)
    say(f"{'serve':<10}{middle('submitted'):>12.0f}{middle('delivered'):>13.0f}"
        f"{middle('p50'):>9.2f}{middle('p99'):>9.2f}{middle('cpu'):>12.3f}"
        f"{middle('client'):>8.3f}{middle('sink'):>8.3f}{middle('commit'):>11.2f}"
        f"{middle('jobs'):>7.1f}")
    say(f"{args.rounds} rounds of {args.messages} messages of {args.size} bytes, {args.sessions} "
        f"connections; medians; {os.cpu_count()} cores for server, load and sink")


def rest(args):
    args.sessions = args.sessions or 50
    packages.ensure("build", "bench")
    binary = args.binary or build.binary("release")
    where = build.build("release", [CLIENT, *([] if args.binary else ["koukan"])], quiet=True)
    group = procs.Group("koukan-bench-")
    try:
        sink = Sink(group, "rest")
        server = start(group, binary, sink.port)
        rounds = []
        for number in range(args.rounds + 1):
            it = one_round(os.path.join(where, CLIENT), server, sink, args)
            if number == 0:
                continue  # warm
            rounds.append(it)
            say(f"round {number} {it.submitted:8.0f}/s submitted {it.delivered:8.0f}/s delivered, "
                f"p50 {it.p50:.2f} p99 {it.p99:.2f} greatest {it.greatest:.2f} ms, "
                f"{it.cpu:.3f} ms CPU")
        table(rounds, args)
        return 0
    finally:
        group.close()
