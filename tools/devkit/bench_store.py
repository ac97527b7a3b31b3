# SPDX-License-Identifier: Apache-2.0
"""`store`: submissions that are stored before their 250, since the next hop is down.

  sqlite       smtp-source -> koukan serve, submission listener, an SQLite file
  postgresql   the same with a PostgreSQL server of our own (fsync on)
  postfix      smtp-source -> Postfix with its transports deferred: its queue file before the 250

Acknowledged/s counts from the first connection of smtp-source until its last 250.  CPU is the user
and system time of the servers (PostgreSQL's processes apart).  p50 and p99 are the milliseconds
from the last byte of a message to its 250, as a few more sessions see them meanwhile.  Stored is
what lies in the queue afterwards.  --fsync-ms makes each flush slower, as on a disk whose cache is
really flushed."""
import os
import sqlite3
import statistics
import string
import subprocess
import threading
import time

from devkit import build, packages, postfix, procs
from devkit.common import ROOT, Failed, say, step
from devkit.crash import harness

CONFIGS = os.path.join(ROOT, "tests", "bench")
PROBES = 4
# What a stored row says of an attempt that reached the next hop.  When too few do, something else
# was measured; some never get there under load, since there are so many connections to it already.
TRIED = {"down": "responses LIKE '%Connection refused%'", "4xx": "responses LIKE '%command failed%'"}
TRIED_MIN = 0.9
DEFERRED = """\
defer_transports = smtp, relay, error, retry
maximal_backoff_time = 4000s
qmgr_message_active_limit = 20000
smtpd_client_connection_count_limit = 0
default_process_limit = 300
"""


class Probe(threading.Thread):
    """A session that submits one message after the other and measures each 250."""

    def __init__(self, port, size):
        super().__init__(daemon=True)
        self.port, self.size = port, size
        self.seconds = []
        self.refused = 0
        self.end = threading.Event()
        self.start()

    def run(self):
        harness()
        from load import Refused, SmtpClient
        data = (b"Subject: probe\r\n\r\n" + b"x" * 70 + b"\r\n") + (b"y" * 62 + b"\r\n") * (
            self.size // 64)
        client = None
        while not self.end.wait(0.005):
            try:
                client = client or SmtpClient(self.port)
                self.seconds.append(client.send_to("alice@example.com", "bob@example.com", data))
            except (OSError, Refused):
                self.refused += 1
                client = None
                time.sleep(0.05)


class Subject:
    """One server: where mail goes in, what it has used and stored."""

    def __init__(self, name, port, servers):
        self.name, self.port, self.servers = name, port, servers
        self.rates, self.cpu, self.seconds = [], [], []
        self.sent = self.refused = 0

    def cpu_seconds(self):
        return sum(procs.cpu_seconds(server.pid) for server in self.servers)

    def stored(self, where="true"):
        """What lies in the queue."""
        raise NotImplementedError

    def round(self, args):
        probes = [Probe(self.port, args.size) for _ in range(PROBES)]
        cpu, begin = self.cpu_seconds(), time.monotonic()
        sent = subprocess.run(
            ["smtp-source", "-s", str(args.sessions), "-m", str(args.messages), "-l",
             str(args.size), "-f", "alice@example.com", "-t", "bob@example.com", "-M", "localhost",
             *(["-d"] if args.reuse else []), f"127.0.0.1:{self.port}"],
            check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        seconds = time.monotonic() - begin
        for probe in probes:
            probe.end.set()
        for probe in probes:
            probe.join(30)
        if sent.returncode != 0:
            raise Failed(f"{self.name}: smtp-source: {sent.stdout.decode()[-500:]}\n"
                         + "\n".join(server.tail(2000) for server in self.servers))
        probed = [value for probe in probes for value in probe.seconds]
        count = args.messages + len(probed)
        self.sent += count
        self.refused += sum(probe.refused for probe in probes)
        return count / seconds, (self.cpu_seconds() - cpu) * 1000 / count, probed


class SqliteSubject(Subject):
    def __init__(self, port, server, path):
        super().__init__("sqlite", port, [server])
        self.path = path

    def stored(self, where="true"):
        """Read only, and only after the server has ended."""
        with sqlite3.connect(f"file:{self.path}?mode=ro", uri=True) as database:
            count = database.execute(f"SELECT count(*) FROM tx WHERE {where}").fetchone()[0]
        database.close()
        return count


class PostgresSubject(Subject):
    def __init__(self, port, server, cluster):
        super().__init__("postgresql", port, [server])
        self.cluster = cluster

    def stored(self, where="true"):
        return int(self.cluster.sql(f"SELECT count(*) FROM koukan.tx WHERE {where}"))


class PostfixSubject(Subject):
    def __init__(self, postfix_server):
        super().__init__("postfix", postfix_server.port, [postfix_server.master])
        self.postfix = postfix_server

    def cpu_seconds(self):
        return self.postfix.cpu_seconds()

    def stored(self, where="true"):
        """Queue files, whichever queue they are in; its transports are deferred, that is all."""
        spool = os.path.join(self.postfix.folder, "spool")
        return sum(len(files) for queue in ("maildrop", "incoming", "active", "deferred")
                   for _, _, files in os.walk(os.path.join(spool, queue)))


def shim(args, folder):
    """What makes flushes slower: environment of a server."""
    if not args.fsync_ms:
        return {}
    harness()
    import disk
    return {"LD_PRELOAD": disk.build_shim(folder), "FSYNC_SHIM": str(int(args.fsync_ms * 1000))}


def start_koukan(args, group, binary, name, url, hop_port):
    folder = os.path.join(group.folder, name)
    os.makedirs(folder, exist_ok=True)
    values = {"folder": folder, "hop_port": hop_port, "gateway_port": procs.free_port(),
              "router_port": procs.free_port(), "url": url}
    paths = []
    for config in ("store-gateway.yaml", "store-router.yaml"):
        with open(os.path.join(CONFIGS, config), encoding="utf-8") as file:
            text = string.Template(file.read()).substitute(values)
        paths.append(os.path.join(folder, config))
        with open(paths[-1], "w", encoding="utf-8") as file:
            file.write(text)
    server = group.add(procs.Server(name, binary, ["serve", *paths], folder,
                                    env=shim(args, group.folder)))
    server.wait_ready()
    return server


def make_postgres(args, group, binary, hop_port):
    harness()
    import database
    scratch = os.path.join(group.folder, "cluster")
    os.makedirs(scratch)
    os.chmod(group.folder, 0o755)
    try:
        cluster = database.Postgres(scratch)
    except Failed as error:
        say(f"postgresql is left out: {error}")
        return None
    group.add(cluster.server)
    refusal = database.is_refused(cluster.url, binary, scratch)
    if refusal:
        say(f"postgresql is left out: {refusal}")
        return None
    server = start_koukan(args, group, binary, "postgresql", cluster.url, hop_port)
    return PostgresSubject(server.smtp_ports()[0], server, cluster)


def make_postfix(args, group, hop_port):
    if os.geteuid() != 0:
        say("postfix is left out: its master process needs root")
        return None
    server = postfix.Postfix(group.folder, hop_port)
    with open(os.path.join(server.folder, "main.cf"), "a", encoding="ascii") as file:
        file.write(DEFERRED)
        slow = shim(args, group.folder)
        if slow:
            file.write("import_environment = MAIL_CONFIG MAIL_DEBUG MAIL_LOGTAG TZ "
                       + " ".join(f"{key}={value}" for key, value in slow.items()) + "\n")
    server.start()
    group.add(server.master)
    return PostfixSubject(server)


def make_hop(args, group):
    """The port of a next hop that is down, or that answers 4xx to each recipient."""
    port = procs.free_port()
    if args.hop == "4xx":
        user = ["-u", "nobody"] if os.geteuid() == 0 else []
        sink = group.add(procs.Proc("hop", ["smtp-sink", "-m", "1000", "-r", "RCPT", *user,
                                            f"127.0.0.1:{port}", "1000"], group.folder))
        procs.wait_until(lambda: not procs.can_bind(port), "smtp-sink", alive=sink)
    return port


def subjects(args, group, binary):
    hop_port = make_hop(args, group)
    for name in args.only or ["sqlite", "postgresql", "postfix"]:
        if name == "sqlite":
            path = os.path.join(group.folder, "sqlite", "queue.db")
            server = start_koukan(args, group, binary, name, "sqlite:///" + path, hop_port)
            yield SqliteSubject(server.smtp_ports()[0], server, path)
        elif name == "postgresql":
            yield make_postgres(args, group, binary, hop_port)
        elif name == "postfix":
            yield make_postfix(args, group, hop_port)


def percentile(values, share):
    values = sorted(values)
    return values[min(len(values) - 1, int(len(values) * share))] * 1000 if values else 0.0


def table(made, args):
    reference = next((each for each in made if each.name == "postfix"), None)
    say(f"{'':<12}{'acknowl./s':>11}{'(min-max)':>14}{'CPU ms/msg':>12}{'p50 ms':>9}{'p99 ms':>9}"
        f"{'rate/Postfix':>14}{'stored':>16}")
    for each in made:
        rate = statistics.median(each.rates)
        ratio = f"{rate / statistics.median(reference.rates):.2f}" if reference else "-"
        span = f"{min(each.rates):.0f}-{max(each.rates):.0f}"
        say(f"{each.name:<12}{rate:>11.0f}{span:>14}{statistics.median(each.cpu):>12.3f}"
            f"{percentile(each.seconds, 0.5):>9.1f}{percentile(each.seconds, 0.99):>9.1f}"
            f"{ratio:>14}{f'{each.count}/{each.sent}':>16}")
    slow = f", {args.fsync_ms:g} ms added to each flush" if args.fsync_ms else ""
    say(f"{args.rounds} rounds of {args.messages} messages of {args.size} bytes, {args.sessions} "
        f"sessions and {PROBES} that measure; next hop {args.hop}{slow}; medians; "
        f"{os.cpu_count()} cores")


def store(args):
    packages.ensure("build", "bench", "crash")
    binary = args.binary or build.binary("release")
    if not args.binary:
        build.build("release", ["koukan"], quiet=True)
    group = procs.Group("koukan-bench-")
    try:
        made = [each for each in subjects(args, group, binary) if each is not None]
        for number in range(-1, args.rounds):  # one to warm up
            for each in made:
                rate, cpu, seconds = each.round(args)
                if number < 0:
                    continue
                each.rates.append(rate)
                each.cpu.append(cpu)
                each.seconds += seconds
                say(f"round {number + 1} {each.name:<11} {rate:8.0f}/s {cpu:7.3f} ms CPU, p99 "
                    f"{percentile(seconds, 0.99):.1f} ms")
        for each in made:
            if isinstance(each, SqliteSubject):
                each.servers[0].stop()
            each.count = each.stored()
            tried = each.stored(TRIED[args.hop])
            if tried < TRIED_MIN * each.count:
                raise Failed(f"{each.name}: only {tried} of {each.count} messages were tried at "
                             "the next hop")
        step("store")
        table(made, args)
        return 0 if all(each.count >= each.sent for each in made) else 1
    finally:
        group.close()
