# SPDX-License-Identifier: Apache-2.0
"""Large messages all at once in a server that may not have much memory: a control group kills it
when it takes more."""
import http.client
import os
import re
import threading
import time
import zlib

import letters
from faults import REFUSALS
from hop import Hop, address_of
from load import RestClient, Refused, SmtpClient
from million import peak_mib
from scene import Scene, Skip, wait_for
from server import ADDRESS, quiet_port

LINE = b"0123456789abcdefghijklmnopqrstuvwxyz" * 25 + b"\r\n"
BLOCK = LINE * 290  # about 256 KiB


class Group:
    """A control group with a limit on memory, of version 1 or 2."""

    def __init__(self, name, megabytes):
        old, new = "/sys/fs/cgroup/memory", "/sys/fs/cgroup"
        self.is_old = os.path.exists(os.path.join(old, "memory.limit_in_bytes"))
        self.path = os.path.join(old if self.is_old else new, name)
        try:
            os.mkdir(self.path)
            self.write("memory.limit_in_bytes" if self.is_old else "memory.max",
                       str(megabytes << 20))
        except OSError as error:
            self.close()
            raise Skip(f"no control group for memory: {error}") from None

    def write(self, name, text):
        with open(os.path.join(self.path, name), "w", encoding="ascii") as file:
            file.write(text)

    def wrapper(self):
        return ("sh", "-c", 'echo $$ >"$0" && exec "$@"', os.path.join(self.path, "cgroup.procs"))

    def kills(self):
        name = "memory.oom_control" if self.is_old else "memory.events"
        with open(os.path.join(self.path, name), encoding="ascii") as file:
            return int(re.search(r"^oom_kill (\d+)$", file.read(), re.M).group(1))

    def close(self):
        try:
            os.rmdir(self.path)
        except OSError:
            pass


class Taker(Hop):
    """A next hop that keeps the check sum of a message, not its bytes."""

    def __init__(self):
        self.open = False
        self.copies = {}  # address -> [check sum of the lines behind the header]
        super().__init__(quiet_port(), on_rcpt=self.judge, on_data=self.note, host=ADDRESS)
        self.taken = self.commands = letters.Nothing()

    def judge(self, _):
        return None if self.open else "451 4.3.0 not now"

    def note(self, message):
        with self.lock:
            self.copies.setdefault(address_of(message.rcpts[0]), []).append(message.data)

    def read_data(self, lines, message):
        total, in_header = 0, True
        for line in lines:
            if line == b".\r\n":
                message.data = total
                return message
            if not in_header:
                total = zlib.crc32(line, total)
            in_header = in_header and line != b"\r\n"
        return None


def blocks(mark, size):
    yield (f"From: <{letters.sender_of(mark)}>\r\nSubject: crash {mark}\r\n"
           "Date: Fri, 13 Feb 2009 23:31:30 +0000\r\n\r\n").encode()
    for _ in range(size // len(BLOCK)):
        yield BLOCK


def sum_of(size):
    total = 0
    for _ in range(size // len(BLOCK)):
        total = zlib.crc32(BLOCK, total)
    return total


class Clients:
    """One message each, all at the same time; what each was told."""

    def __init__(self, koukan, marks, count, size):
        self.koukan, self.size = koukan, size
        self.lock = threading.Lock()
        self.answers = {}  # address -> (way, code); code 0: no answer
        self.threads = []
        for number in range(count):
            self.threads.append(threading.Thread(
                target=self.run, args=("rest" if number % 2 else "msa", marks.next()),
                daemon=True))
            self.threads[-1].start()

    def run(self, way, mark):
        rcpt = letters.rcpt("ok", "1", mark)
        try:
            (self.by_rest if way == "rest" else self.by_smtp)(mark, rcpt)
            code = 250
        except Refused as error:
            code = error.code
        except (OSError, http.client.HTTPException, ValueError):
            code = 0
        with self.lock:
            self.answers[rcpt] = (way, code)

    def by_smtp(self, mark, rcpt):
        client = SmtpClient(self.koukan.msa, 300.0, ADDRESS)
        client.expect(f"MAIL FROM:<{letters.sender_of(mark)}>", 250)
        client.expect(f"RCPT TO:<{rcpt}>", 250)
        client.expect("DATA", 354)
        for block in blocks(mark, self.size):
            client.socket.sendall(block)
        client.socket.sendall(b".\r\n")
        client.expect(None, 250)
        client.close()

    def by_rest(self, mark, rcpt):
        client = RestClient(self.koukan.rest, 300.0)
        tx = (f'{{"mail_from": {{"m": "{letters.sender_of(mark)}"}}, '
              f'"rcpt_to": [{{"m": "{rcpt}"}}]}}')
        response, _ = client.call("POST", "/senders/submission/transactions", tx,
                                  "application/json")
        path = response.getheader("location").split("/", 3)[3]
        length = sum(len(block) for block in blocks(mark, self.size))
        client.http.request("PUT", f"/{path}/body", body=blocks(mark, self.size),
                            headers={"content-length": str(length)})
        response = client.http.getresponse()
        response.read()
        if response.status not in (200, 201):
            raise Refused(response.status)
        client.close()

    def join(self, seconds):
        end = time.monotonic() + seconds
        for thread in self.threads:
            thread.join(max(0.0, end - time.monotonic()))
        return sum(thread.is_alive() for thread in self.threads)


def check_answers(scene, clients):
    """The addresses that were acknowledged."""
    taken, counts = [], {}
    for rcpt, (way, code) in clients.answers.items():
        counts[code] = counts.get(code, 0) + 1
        if code == 250:
            taken.append(rcpt)
        else:
            scene.result.check(code in REFUSALS[way], f"{way} was answered {code}")
    scene.result.note("answers: " + ", ".join(f"{code} x {count}"
                                              for code, count in sorted(counts.items())))
    scene.result.check(taken, "nothing was acknowledged")
    return taken


def check_delivered(scene, hop, taken, size, seconds):
    def missing():
        with hop.lock:
            return [rcpt for rcpt in taken if rcpt not in hop.copies]
    wait_for(lambda: not missing(), seconds, 0.1)
    left = missing()
    scene.result.check(not left, f"{len(left)} of {len(taken)} messages did not arrive")
    want = sum_of(size)
    with hop.lock:
        twice = sum(len(copies) > 1 for copies in hop.copies.values())
        altered = sum(copy != want for copies in hop.copies.values() for copy in copies)
    scene.result.check(not twice, f"{twice} messages arrived twice")
    scene.result.check(not altered, f"{altered} copies were altered")


def memory(options):
    """Large messages all at once, stored and then delivered, with little memory."""
    count, megabytes, limit = (12, 10, 96) if options.short else (50, 30, 256)
    size = megabytes << 20
    group = Group(f"koukan-crash-{os.getpid()}", limit)
    try:
        with Scene(options, "memory") as scene:
            hop = scene.own(Taker())
            koukan, result = scene.koukan, scene.result
            koukan.values["sink_port"] = hop.port
            koukan.start(group.wrapper())
            koukan.wrapped = False  # the shell has become the server
            clients = Clients(koukan, scene.marks, count, size)
            hanging = clients.join(400)
            result.check(hanging == 0, f"{hanging} clients hang")
            taken = check_answers(scene, clients)
            hop.open = True
            check_delivered(scene, hop, taken, size, 400)
            result.note(f"{count} messages of {megabytes} MiB in {limit} MiB: "
                        f"{peak_mib(koukan.pid)} MiB resident at most, {group.kills()} kills")
            result.check(koukan.is_alive() and group.kills() == 0,
                         "ended for want of memory: " + koukan.server.tail(1500))
            code, took = koukan.end()
            result.check(code == 0, f"exit code {code} at the end, after {took:.1f} s")
            for problem in scene.database.check():
                result.fail(f"integrity: {problem}")
            return result
    finally:
        group.close()
