# SPDX-License-Identifier: Apache-2.0
"""Clients that submit by SMTP and REST and write down what was acknowledged.

A client that gets no answer does not know whether its message was taken: the mark is never used
again, and the next try has a new one.  So two copies of a mark are the server's doing."""
import http.client
import json
import socket
import threading
import time
import urllib.parse

import letters
from server import ADDRESS


class Ledger:
    """What the clients know.  A key is (mark, kind of recipient)."""

    def __init__(self):
        self.lock = threading.Lock()
        self.acknowledged = {}   # key -> (time, way)
        self.refused = {}        # key -> (time, code)
        self.unknown = set()     # keys
        self.codes = {}          # (way, code) -> count
        self.latencies = []      # seconds from the last byte to the acknowledgement
        self.refusals = []       # (way, seconds from the start of the message to the refusal)

    def acknowledge(self, way, keys, seconds=None):
        now = time.monotonic()
        with self.lock:
            for key in keys:
                self.acknowledged[key] = (now, way)
            if seconds is not None:
                self.latencies.append(seconds)

    def refuse(self, way, keys, code):
        now = time.monotonic()
        with self.lock:
            self.codes[way, code] = self.codes.get((way, code), 0) + 1
            for key in keys:
                self.refused[key] = (now, code)

    def forget(self, keys):
        with self.lock:
            self.unknown.update(keys)

    def count(self):
        with self.lock:
            return len(self.acknowledged)

    def tries(self):
        with self.lock:
            return len(self.acknowledged) + len(self.unknown) + len(self.refused)

    def snapshot(self):
        with self.lock:
            return dict(self.acknowledged)


class Refused(Exception):
    def __init__(self, code):
        super().__init__(code)
        self.code = code


class SmtpClient:
    """One connection, used for several messages."""

    def __init__(self, port, timeout=40.0, host="127.0.0.1"):
        self.socket = socket.create_connection((host, port), timeout=timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.file = self.socket.makefile("rb")
        self.expect(None, 220)
        self.expect("EHLO localhost", 250)

    def reply(self):
        while True:
            line = self.file.readline()
            if len(line) < 4 or not line.endswith(b"\n"):
                raise OSError("connection ended")
            if line[3:4] != b"-":
                return int(line[:3])

    def command(self, line):
        self.socket.sendall(line.encode() + b"\r\n")
        return self.reply()

    def expect(self, line, want):
        code = self.command(line) if line is not None else self.reply()
        if code != want:
            raise Refused(code)

    def send(self, mark, kinds, data):
        """The kinds of recipients that were accepted with the message, and the seconds that the
        last answer took; Refused."""
        self.expect(f"MAIL FROM:<{letters.sender_of(mark)}> BODY=8BITMIME", 250)
        taken, code = [], 0
        for kind in kinds:
            code = self.command(f"RCPT TO:<{letters.rcpt(kind, '', mark)}>")
            if code == 250:
                taken.append(kind)
        if not taken:
            raise Refused(code)
        self.expect("DATA", 354)
        stuffed = data.replace(b"\r\n.", b"\r\n..")
        self.socket.sendall(stuffed + b".\r\n")
        begin = time.monotonic()
        self.expect(None, 250)
        return taken, time.monotonic() - begin

    def send_to(self, sender, rcpt, data):
        """One message; the seconds that the last answer took."""
        self.expect(f"MAIL FROM:<{sender}>", 250)
        self.expect(f"RCPT TO:<{rcpt}>", 250)
        self.expect("DATA", 354)
        self.socket.sendall(data + b".\r\n")
        begin = time.monotonic()
        self.expect(None, 250)
        return time.monotonic() - begin

    def close(self):
        self.file.close()
        self.socket.close()


class RestClient:
    """One connection."""

    def __init__(self, url, timeout=40.0):
        parts = urllib.parse.urlsplit(url)
        self.http = http.client.HTTPConnection(parts.hostname, parts.port, timeout=timeout)
        self.http.connect()

    def call(self, method, path, body, kind=None):
        self.http.request(method, path, body=body,
                          headers={"content-type": kind} if kind else {})
        response = self.http.getresponse()
        answer = response.read()
        if response.status not in (200, 201):
            raise Refused(response.status)
        return response, answer

    def send(self, mark, kind, data, inline):
        """One recipient; inline in one request, or the body by itself in a second one."""
        tx = {"mail_from": {"m": letters.sender_of(mark)},
              "rcpt_to": [{"m": letters.rcpt(kind, "", mark)}]}
        if inline:
            tx["body"] = {"inline": data.decode()}
        begin = time.monotonic()
        response, _ = self.call("POST", "/senders/submission/transactions", json.dumps(tx),
                                "application/json")
        if not inline:
            path = urllib.parse.urlsplit(response.getheader("location")).path
            self.call("PUT", path + "/body", data)
        return time.monotonic() - begin

    def close(self):
        self.http.close()


class Load:
    """Threads of clients against `target` (an object with msa, mx and rest), until `stop`.
    `ways`: how many clients of each of msa, mx, rest.  `limit`: tries, all together.  While more
    than `backlog` acknowledged messages are not at the sink the clients wait."""

    def __init__(self, target, marks, ways, sink=None, limit=None, backlog=1000, size=None,
                 plain=False, timeout=40.0):
        self.target, self.marks, self.sink = target, marks, sink
        self.limit, self.backlog, self.size, self.plain = limit, backlog, size, plain
        self.timeout = timeout
        self.ledger = Ledger()
        self.end = threading.Event()
        self.threads = [threading.Thread(target=self.run, args=(way,), daemon=True)
                        for way, count in ways.items() for _ in range(count)]
        self.started = 0
        self.busy = {}  # thread -> (since, mark)
        for thread in self.threads:
            thread.start()

    def kinds(self, way, mark):
        """Recipients; in ingress only such as the next hop takes, since its word is final there."""
        if self.plain or way == "mx":
            return ["ok1"]
        number = letters.number_of(mark, "kind") % 100
        if number < 4:
            return ["perm1"]
        if number < 10:
            return ["later1"]
        if number < 20 and way == "msa":
            return ["ok1", "later2", "ok3"]
        return ["ok1"]

    def may_go_on(self):
        while not self.end.is_set():
            if self.sink is None or self.ledger.count() - self.sink.accepted < self.backlog:
                break
            time.sleep(0.02)
        with self.ledger.lock:
            if self.end.is_set() or (self.limit is not None and self.started >= self.limit):
                return False
            self.started += 1
            return True

    def run(self, way):
        client = None
        while self.may_go_on():
            mark = self.marks.next()
            try:
                if client is None:
                    client = (RestClient(self.target.rest, self.timeout) if way == "rest" else
                              SmtpClient(getattr(self.target, way), self.timeout, ADDRESS))
            except (OSError, http.client.HTTPException, Refused, ValueError):
                time.sleep(0.005)
                continue
            self.busy[threading.current_thread()] = (time.monotonic(), way, mark)
            if not self.send(client, way, mark):
                client.close()
                client = None
                time.sleep(0.002)
            self.busy.pop(threading.current_thread(), None)
        if client is not None:
            client.close()

    def send(self, client, way, mark):
        """False: the connection cannot be used again."""
        kinds = self.kinds(way, mark)
        keys = [(mark, kind) for kind in kinds]
        data = letters.message(mark, self.size)
        begin = time.monotonic()
        try:
            if way == "rest":
                inline = len(data) < 50000 and letters.number_of(mark, "inline") % 4 != 0
                seconds = client.send(mark, kinds[0], data, inline)
                self.ledger.acknowledge(way, keys, seconds)
            else:
                taken, seconds = client.send(mark, kinds, data)
                self.ledger.acknowledge(way, [(mark, kind) for kind in taken], seconds)
                self.ledger.refuse(way, [(mark, kind) for kind in kinds if kind not in taken], 0)
            return True
        except Refused as error:
            self.ledger.refuse(way, keys, error.code)
            self.ledger.refusals.append((way, time.monotonic() - begin))
            return False
        except (OSError, http.client.HTTPException, ValueError):
            self.ledger.forget(keys)
            return False

    def stop(self, seconds=60.0):
        """Waits for the running ones; how many threads hang."""
        self.end.set()
        return self.join(seconds)

    def join(self, seconds):
        end = time.monotonic() + seconds
        for thread in self.threads:
            thread.join(max(0.0, end - time.monotonic()))
        return sum(thread.is_alive() for thread in self.threads)
