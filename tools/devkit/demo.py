# SPDX-License-Identifier: Apache-2.0
"""Builds Koukan, starts the local test environment and sends real mail through it.

  koukan serve      SMTP ingress on 1025, SMTP submission on 1587, REST on 8000 and 8001
  koukan sink       the next hop, on 3025: keeps each message as a file
  koukan receiver   an application that takes mail by REST, on 8002: keeps parsed JSON and parts

Four messages travel: SMTP to SMTP, SMTP to REST, SMTP submission, REST submission; for each is shown
what was said and where it arrived.  Then everything is stopped and done again with gateway and
router as two processes.  Without --once it stays up afterwards, for you to try.

The usual ports are used when they are free, others otherwise; all files are in a new folder under
$TMPDIR, which is removed at the end (--keep leaves it)."""
import json
import os
import re
import secrets
import signal
import threading
import time
import urllib.request

from devkit import build, procs
from devkit.common import ROOT, Failed, say

LOCAL_TEST = os.path.join(ROOT, "config", "local-test")
BUILDER = os.path.join(ROOT, "examples", "send_message", "message_builder.json")
PORTS = (1025, 1465, 1587, 3025, 8000, 8001, 8002)
ALICE, BOB, APP = "alice@example.com", "bob@example.com", "bob@rest-application.example.com"


def choose_ports():
    """{usual port: port to use}"""
    return {port: port if procs.can_bind(port) else procs.free_port() for port in PORTS}


def replace_ports(text, ports):
    return re.sub(r"(?<![\w.])(" + "|".join(map(str, PORTS)) + r")(?![\w.])",
                  lambda match: str(ports[int(match.group())]), text)


def indented(text, limit=14):
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    shown = lines[:limit] + (["..."] if len(lines) > limit else [])
    return "\n".join("    | " + line[:150] for line in shown)


class Place:
    """A folder that is watched for new files."""

    def __init__(self, folder):
        self.folder = folder
        self.seen = set()
        os.makedirs(folder, exist_ok=True)

    def read(self, name):
        with open(os.path.join(self.folder, name), "rb") as file:
            return file.read().decode("utf-8", "replace")

    def wait_for(self, mark, what):
        """The names of all new files once one of them contains `mark`."""
        def arrived():
            names = sorted(set(os.listdir(self.folder)) - self.seen)
            return names if any(mark in self.read(name) for name in names) else None
        names = procs.wait_until(arrived, what, 20)
        # Files of the same message may still be on their way to the disk.
        time.sleep(0.1)
        names = sorted(set(os.listdir(self.folder)) - self.seen)
        self.seen.update(names)
        return names


class Demo:
    def __init__(self, group, binary):
        self.group, self.binary = group, binary
        self.ports = choose_ports()
        moved = {old: new for old, new in self.ports.items() if old != new}
        if moved:
            say("ports in use, others taken: " + ", ".join(f"{old} -> {new}"
                                                           for old, new in moved.items()))
        self.sink = Place(os.path.join(group.folder, "sink"))
        self.receiver = Place(os.path.join(group.folder, "receiver"))
        self.servers = []
        self.env = {"XDG_STATE_HOME": os.path.join(group.folder, "state")}

    def config(self, name):
        with open(os.path.join(LOCAL_TEST, name), encoding="utf-8") as file:
            text = replace_ports(file.read(), self.ports)
        path = os.path.join(self.group.folder, name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return path

    # ---- processes ----

    def start_ends(self):
        """Next hop and application."""
        sink = self.group.add(procs.Proc("sink", [
            self.binary, "sink", str(self.ports[3025]), "--json", "--dir", self.sink.folder],
            self.group.folder))
        receiver = self.group.add(procs.Proc("receiver", [
            self.binary, "receiver", "--listen", f"localhost:{self.ports[8002]}", "--dir",
            self.receiver.folder], self.group.folder))
        sink.wait_listening()
        receiver.wait_listening()

    def start_servers(self, two):
        gateway, router = self.config("gateway.yaml"), self.config("router.yaml")
        # Without files, serve runs the same set-up from a copy inside the program.
        files = [gateway, router] if any(old != new for old, new in self.ports.items()) else []
        starts = ([("router", ["router", router]), ("gateway", ["gateway", gateway])] if two else
                  [("serve", ["serve", *files])])
        for name, arguments in starts:
            say(f"$ koukan {' '.join(os.path.basename(word) for word in arguments)}")
            server = self.group.add(procs.Server(name, self.binary, arguments, self.group.folder,
                                                 env=self.env))
            server.wait_ready()
            self.servers.append(server)

    def stop_servers(self):
        for server in reversed(self.servers):
            if server.stop() != 0:
                raise Failed(f"{server.name} did not end well\n" + server.tail())
            self.group.procs.remove(server)
        self.servers = []

    def tool(self, *arguments, stdin=None):
        """Runs `koukan ...`; its output.  Shown as one would type it."""
        say("$ koukan " + " ".join(arguments))
        input_path = os.path.join(self.group.folder, "stdin")
        with open(input_path, "w", encoding="utf-8", newline="") as file:
            file.write(stdin or "")
        with open(input_path, "rb") as file:
            proc = procs.Proc("tool", [self.binary, *arguments], self.group.folder, stdin=file)
            code = proc.finish(60)
        text = proc.out() + proc.err()
        for path in (proc.out_path, proc.err_path):
            os.unlink(path)
        say(indented(text, 24))
        if code != 0:
            raise Failed(f"koukan {arguments[0]}: exit code {code}\n"
                         + "\n".join(server.tail() for server in self.servers))
        return text

    # ---- the four flows ----

    def send_smtp(self, port, rcpt, mark):
        message = (f"From: Alice <{ALICE}>\nTo: <{rcpt}>\nSubject: demo {mark}\n"
                   f"Date: {time.strftime('%a, %d %b %Y %H:%M:%S +0000', time.gmtime())}\n"
                   f"Message-ID: <{mark}@example.com>\nMIME-Version: 1.0\n"
                   "Content-Type: text/plain; charset=utf-8\n\nHello from the demo.\n")
        text = self.tool("smtp", "localhost", str(port), "localhost", ALICE, rcpt, stdin=message)
        if "250" not in text:
            raise Failed("no 250 among the replies")

    def show_files(self, place, names):
        for name in names:
            say("  arrived: " + os.path.join(place.folder, name))
        # The receiver's parsed form tells most, else the message itself.
        best = [name for name in names if name.endswith(".msg.json")] or names
        say(indented(place.read(best[0]), 16))

    def arrive(self, place, mark):
        names = place.wait_for(mark, f"the message {mark} in {place.folder}")
        self.show_files(place, names)
        return names

    def smtp_to_smtp(self):
        mark = secrets.token_hex(6)
        self.send_smtp(self.ports[1025], BOB, mark)
        self.arrive(self.sink, mark)

    def smtp_to_rest(self):
        mark = secrets.token_hex(6)
        self.send_smtp(self.ports[1025], APP, mark)
        names = self.arrive(self.receiver, mark)
        for suffix in (".msg", ".msg.json", ".tx.json"):
            if not any(name.endswith(suffix) for name in names):
                raise Failed(f"the receiver kept no {suffix}: {names}")

    def smtp_submission(self):
        mark = secrets.token_hex(6)
        self.send_smtp(self.ports[1587], BOB, mark)
        self.arrive(self.sink, mark)

    def rest_submission(self):
        mark = secrets.token_hex(6)
        with open(BUILDER, encoding="utf-8") as file:
            spec = json.load(file)
        spec["headers"] = [pair for pair in spec.get("headers", [])
                           if pair[0].lower() not in ("subject", "message-id")]
        spec["headers"] += [["subject", f"demo {mark}"], ["message-id", [f"{mark}@example.com"]]]
        # Beside a copy of the example's files, which it may name.
        folder = os.path.join(self.group.folder, "send_message")
        os.makedirs(folder, exist_ok=True)
        for name in os.listdir(os.path.dirname(BUILDER)):
            with open(os.path.join(os.path.dirname(BUILDER), name), "rb") as file:
                content = file.read()
            with open(os.path.join(folder, name), "wb") as file:
                file.write(content)
        path = os.path.join(folder, "message_builder.json")
        with open(path, "w", encoding="utf-8") as file:
            json.dump(spec, file, indent=1)
        text = self.tool("send", "--url",
                         f"http://localhost:{self.ports[8000]}/senders/submission/transactions",
                         "--mail_from", ALICE, "--message_builder_filename", path, BOB)
        self.arrive(self.sink, mark)
        self.show_transaction(text)

    def show_transaction(self, text):
        found = re.search(r"https?://\S+?/transactions/[\w-]+", text)
        if not found:
            raise Failed("koukan send did not name the transaction")
        with urllib.request.urlopen(found.group(), timeout=10) as response:
            tx = json.load(response)
        say("  the transaction, GET " + found.group())
        say(indented("\n".join(f"{key}: {json.dumps(value)}" for key, value in tx.items()), 40))
        if tx.get("final_attempt_reason") != "upstream response success":
            raise Failed("the transaction has not succeeded")

    def all_flows(self, two):
        title = "gateway and router as two processes" if two else "one process, koukan serve"
        say(f"\n== {title}\n")
        self.start_servers(two)
        for number, (name, flow) in enumerate((
                ("SMTP ingress to SMTP", self.smtp_to_smtp),
                ("SMTP ingress to REST", self.smtp_to_rest),
                ("SMTP submission", self.smtp_submission),
                ("REST submission", self.rest_submission)), 1):
            say(f"\n-- flow {number}: {name}")
            flow()
            say(f"   flow {number}: ok")

    # ---- afterwards ----

    def stay(self):
        ports = self.ports
        say(f"""
Everything is up.  Try, in another terminal (the binary is {os.path.relpath(self.binary)}):

  koukan smtp localhost {ports[1025]} localhost {ALICE} {BOB}     SMTP ingress
  koukan smtp localhost {ports[1587]} localhost {ALICE} {BOB}     SMTP submission
  koukan send --url http://localhost:{ports[8000]}/senders/submission/transactions \\
      --mail_from {ALICE} --message_builder_filename examples/send_message/message_builder.json {BOB}
  ls {self.sink.folder} {self.receiver.folder}
  tail -f {self.servers[0].err_path}

Ctrl-C ends it.""")
        done = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: done.set())
        while not done.wait(0.5):
            for proc in self.group.procs:
                if not proc.is_alive():
                    raise Failed(f"{proc.name} has ended\n" + proc.tail())


def add_arguments(parser):
    parser.add_argument("--once", action="store_true",
                        help="exit when all flows are done: 0 when every message arrived")
    parser.add_argument("--two-processes", action="store_true",
                        help="only with gateway and router as two processes")
    parser.add_argument("--keep", action="store_true", help="leave the folder with all files")
    parser.add_argument("--binary", metavar="FILE", help="this one instead of a release build")


def main(args):
    binary = args.binary or build.binary("release")
    if not args.binary:
        say("building (the first time takes a minute or two)")
        build.build("release", ["koukan"], quiet=True)
    # From here on an end by signal still ends what was started.
    signal.signal(signal.SIGTERM, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
    group = procs.Group("koukan-demo-")
    try:
        demo = Demo(group, os.path.abspath(binary))
        demo.start_ends()
        for two in ([True] if args.two_processes else [False, True]):
            demo.all_flows(two)
            demo.stop_servers()
        say("\nAll flows done: every message arrived.")
        if not args.once:
            demo.start_servers(args.two_processes)
            demo.stay()
        return 0
    finally:
        if args.keep:
            say("files: " + group.folder)
        group.close(keep_folder=args.keep)
