# SPDX-License-Identifier: Apache-2.0
"""Messages, a raw SMTP client and a small REST client for the tests."""
import http.client
import json
import secrets
import smtplib
import socket
import time
import urllib.parse

ALICE = "alice@example.com"
BOB = "bob@example.com"
APP = "bob@rest-application.example.com"


def token():
    return secrets.token_hex(8)


def message(mark, body="hello\r\n", sender=ALICE, rcpt=BOB):
    """A complete message with CRLF line ends; `mark` is in its subject and its last line."""
    return (f"From: Alice <{sender}>\r\nTo: <{rcpt}>\r\nSubject: test {mark}\r\n"
            f"Date: Fri, 13 Feb 2009 23:31:30 +0000\r\nMessage-ID: <{mark}@example.com>\r\n"
            f"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n"
            f"{body}end-{mark}\r\n").encode()


def submit(port, mark, sender=ALICE, rcpts=(BOB,), data=None, timeout=30):
    """Sends with smtplib; the (code, text) of end-of-data.  Raises what smtplib raises."""
    with smtplib.SMTP("127.0.0.1", port, local_hostname="localhost", timeout=timeout) as client:
        client.ehlo()
        code, text = client.mail(sender)
        if code != 250:
            raise smtplib.SMTPSenderRefused(code, text, sender)
        refused = {}
        for rcpt in rcpts:
            code, text = client.rcpt(rcpt)
            if code != 250:
                refused[rcpt] = (code, text)
        if refused:
            raise smtplib.SMTPRecipientsRefused(refused)
        code, text = client.data(data if data is not None else message(mark))
        return code, text.decode()


class Raw:
    """Bytes out, replies in."""

    def __init__(self, port, timeout=20.0, greet=True, ehlo=True):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout)
        self.file = self.socket.makefile("rb")
        if greet:
            assert self.reply()[0] == 220
        if ehlo:
            self.extensions = self.command("EHLO localhost")[1].split("\n")[1:]

    def send(self, data):
        self.socket.sendall(data if isinstance(data, bytes) else data.encode())

    def reply(self):
        """(code, text); lines joined by \\n.  (0, "") when the connection has ended."""
        lines = []
        while True:
            line = self.file.readline()
            if not line:
                return 0, ""
            lines.append(line.decode("utf-8", "replace").rstrip("\r\n"))
            if lines[-1][3:4] != "-":
                return int(lines[-1][:3]), "\n".join(text[4:] for text in lines)

    def command(self, line):
        self.send(line + "\r\n")
        return self.reply()

    def code(self, line):
        return self.command(line)[0]

    def begin(self, rcpt=BOB, sender=ALICE):
        assert self.code(f"MAIL FROM:<{sender}>") == 250
        assert self.code(f"RCPT TO:<{rcpt}>") == 250

    def works(self, mark):
        """Sends a normal message: the session has survived."""
        self.begin()
        assert self.code("DATA") == 354
        self.send(message(mark) + b".\r\n")
        return self.reply()

    def is_closed(self):
        try:
            return self.file.readline() == b""
        except ConnectionResetError:
            return True

    def close(self):
        self.file.close()
        self.socket.close()

    def reset(self):
        """Ends the connection with RST."""
        import struct
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Answer:
    def __init__(self, response, body):
        self.status = response.status
        self.headers = {key.lower(): value for key, value in response.getheaders()}
        self.body = body

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def etag(self):
        return self.headers.get("etag")


class Rest:
    """One connection to a REST listener."""

    def __init__(self, url, timeout=60.0):
        self.url = url
        parts = urllib.parse.urlsplit(url)
        self.http = http.client.HTTPConnection(parts.hostname, parts.port, timeout=timeout)

    def call(self, method, path, body=None, **headers):
        if path.startswith("http"):
            path = urllib.parse.urlsplit(path).path
        fields = {key.replace("_", "-"): str(value) for key, value in headers.items()}
        if isinstance(body, (dict, list)):
            body = json.dumps(body).encode()
            fields.setdefault("content-type", "application/json")
        self.http.request(method, path, body=body, headers=fields)
        response = self.http.getresponse()
        return Answer(response, response.read())

    def create(self, principal="submission", **tx):
        answer = self.call("POST", f"/senders/{principal}/transactions", tx)
        assert answer.status == 201, (answer.status, answer.body)
        return answer

    def submit(self, mark, rcpt=BOB, sender="submission", data=None):
        """Inline body, one request."""
        text = (data if data is not None else message(mark, rcpt=rcpt)).decode()
        return self.create(sender, mail_from={"m": ALICE}, rcpt_to=[{"m": rcpt}],
                           body={"inline": text})

    def get(self, path, etag=None, wait=None):
        headers = {}
        if etag is not None:
            headers["if_none_match"] = etag
        if wait is not None:
            headers["request_timeout"] = wait
        return self.call("GET", path, **headers)

    def wait(self, path, condition, seconds=20.0):
        """Long-polls until condition(json); the last answer with a body."""
        end = time.monotonic() + seconds
        answer = self.get(path)
        while not (answer.status == 200 and condition(answer.json)):
            left = end - time.monotonic()
            assert left > 0, f"in vain after {seconds:g} s: {answer.status} {answer.body!r}"
            newer = self.get(path, answer.etag, wait=max(1, min(int(left), 10)))
            assert newer.status in (200, 304), (newer.status, newer.body)
            if newer.status == 200:
                answer = newer
            else:
                time.sleep(0.05)  # not active between attempts: 304 at once
        return answer

    def final(self, path, seconds=20.0):
        return self.wait(path, lambda tx: "final_attempt_reason" in tx, seconds).json

    def close(self):
        self.http.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
