# SPDX-License-Identifier: Apache-2.0
"""The existing client and server, as doubles: they do what those do, in the same order, and are as
strict.  What the original turns into a 450 or an assertion is a `Fault` here (client), or is kept in
`faults` (server), so that a test sees what was wrong."""
import http.server
import json
import re
import socket
import threading
import time
import urllib.parse

from mail import Rest

# The field matrix: what a creation, an update and a read may hold.
CREATE = {"remote_host", "local_host", "mail_from", "rcpt_to", "body", "smtp_meta", "sender",
          "filter_output"}
UPDATE = {"mail_from", "rcpt_to", "body", "filter_output"}
READ = {"remote_host", "local_host", "mail_from", "mail_response", "rcpt_to", "rcpt_response",
        "data_response", "attempt_count", "body", "notification", "retry", "cancelled",
        "final_attempt_reason", "sender", "filter_output"}
PLACEHOLDERS = {"mail_from", "sender", "filter_output"}
JSON = "application/json"


class Fault(Exception):
    """What the original would not have taken."""


def need(condition, what):
    if not condition:
        raise Fault(what)


# ---- objects ----

def is_host_port(value):
    return (isinstance(value, list) and len(value) == 2 and isinstance(value[0], str)
            and isinstance(value[1], int))


def is_mailbox(value):
    if not isinstance(value, dict) or not isinstance(value.get("m"), str):
        return False
    params = value.get("e", [])
    return set(value) <= {"m", "e"} and ("e" not in value or params) and all(
        set(each) <= {"k", "p"} and isinstance(each.get("k"), str)
        and isinstance(each.get("p", ""), str) for each in params)


def is_response(value):
    return (isinstance(value, dict) and set(value) <= {"code", "message"}
            and isinstance(value.get("code"), int) and isinstance(value.get("message", ""), str))


def check_keys(tx, allowed, offsets=False):
    need(isinstance(tx, dict), f"no object: {tx!r}")
    for key, value in tx.items():
        need(key in allowed or offsets and key.endswith("_list_offset"), f"unknown key {key}")
        need(value is not None, f"{key} is null")
        need(value != [], f"{key} is an empty list")


def check_request(tx, allowed, offsets=False):
    """What a server takes from a client."""
    check_keys(tx, allowed, offsets)
    for key in ("remote_host", "local_host"):
        need(key not in tx or is_host_port(tx[key]), f"{key}: {tx.get(key)!r}")
    need("mail_from" not in tx or is_mailbox(tx["mail_from"]), f"mail_from {tx.get('mail_from')}")
    need(all(is_mailbox(each) for each in tx.get("rcpt_to", [])), f"rcpt_to {tx.get('rcpt_to')}")
    sender = tx.get("sender", {})
    need(isinstance(sender, dict) and set(sender) <= {"name", "tag"}
         and all(isinstance(each, str) for each in sender.values()), f"sender {sender!r}")


def blob_uris(body):
    """{blob id: status}; the whole message is None."""
    need(isinstance(body, dict) and set(body) <= {"blob_status", "message_builder"},
         f"body {body!r}")
    found = {}
    if "blob_status" in body:
        found[None] = body["blob_status"]
    builder = body.get("message_builder", {})
    need(set(builder) <= {"uri", "blob_status"}, f"message_builder {builder!r}")
    found.update(builder.get("blob_status", {}))
    for status in found.values():
        need(re.match(r"https?://[^/]+/", status["uri"]), f"no absolute URL: {status['uri']}")
        need(isinstance(status.get("finalized", False), bool), f"finalized {status!r}")
    return found


def check_read(tx):
    """What a client takes from a server."""
    check_keys(tx, READ)
    for key in PLACEHOLDERS & set(tx):
        need(tx[key] == {}, f"{key} is no placeholder: {tx[key]!r}")
    need(all(each == {} for each in tx.get("rcpt_to", [])), f"rcpt_to {tx.get('rcpt_to')}")
    for key in ("mail_response", "data_response"):
        need(key not in tx or is_response(tx[key]), f"{key} {tx.get(key)!r}")
    need(all(is_response(each) for each in tx.get("rcpt_response", [])), "rcpt_response")
    need(len(tx.get("rcpt_response", [])) <= len(tx.get("rcpt_to", [])), "more answers than rcpts")
    blob_uris(tx.get("body", {}))


def check_body_growth(old, new):
    before, after = blob_uris(old), blob_uris(new)
    if "blob_status" in old.get("message_builder", {}) or "message_builder" not in new:
        need(set(before) == set(after), f"other blobs: {set(before)} then {set(after)}")
    for name in set(before) & set(after):
        need(urllib.parse.urlsplit(before[name]["uri"]).path
             == urllib.parse.urlsplit(after[name]["uri"]).path, "the path of a blob has changed")
        need(after[name].get("finalized", False) or not before[name].get("finalized", False),
             "a blob is not finalized any more")


def check_growth(old, new):
    """From one read to the next: nothing goes, nothing changes, lists grow at their end."""
    for key, value in old.items():
        need(key in new or key in PLACEHOLDERS or key == "rcpt_to", f"{key} is gone")
        if key == "body":
            check_body_growth(value, new[key])
        elif key in ("rcpt_to", "rcpt_response"):
            need(new.get(key, [])[:len(value)] == value, f"{key}: {value} then {new.get(key)}")
        elif key in new:
            need(new[key] == value, f"{key}: {value!r} then {new[key]!r}")


def in_flight(tx, body_is_final=False):
    if "mail_response" not in tx:
        return True
    if tx["mail_response"]["code"] >= 300:
        return False
    if len(tx.get("rcpt_response", [])) < len(tx.get("rcpt_to", [])):
        return True
    accepted = any(each["code"] < 300 for each in tx.get("rcpt_response", []))
    return body_is_final and accepted and "data_response" not in tx


# ---- the client ("RestEndpoint") ----

class Client:
    """One transaction.  `sent` are its requests: (method, status)."""

    def __init__(self, base, path="/senders/submission/transactions", seconds=30, chunk_size=None):
        self.rest = Rest(base)
        self.path, self.seconds, self.chunk_size = path, seconds, chunk_size
        self.tx = self.etag = self.location = None
        self.sent = []

    def close(self):
        self.rest.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def ask(self, method, url, body=None, **headers):
        answer = self.rest.call(method, url, body, **headers)
        self.sent.append((method, answer.status))
        return answer

    def take(self, answer, first=False):
        """A JSON answer with its etag."""
        need(answer.headers.get("content-type") == JSON,
             f"content-type {answer.headers.get('content-type')!r}")
        need(answer.etag, "no etag")
        new = answer.json
        check_read(new)
        if not first:
            check_growth(self.tx, new)
        self.tx, self.etag = new, answer.etag
        return new

    def start(self, **tx):
        check_request(tx, CREATE)
        answer = self.ask("POST", self.path, tx, request_timeout=self.seconds - 1)
        need(answer.status == 201, f"POST {answer.status} {answer.body!r}")
        self.location = answer.headers["location"]
        need(re.match(r"https?://[^/]+/", self.location), f"location {self.location}")
        need(answer.headers["content-type"] == JSON, "content-type of 201")
        return self.take(answer, True)

    def get(self):
        """One poll; true when there was news."""
        begin = time.monotonic()
        answer = self.ask("GET", self.location, if_none_match=self.etag,
                          request_timeout=self.seconds - 1)
        if answer.status == 304:
            need(answer.etag == self.etag, f"304 with {answer.etag!r} for {self.etag!r}")
            need(answer.body == b"", "304 with a body")
            time.sleep(max(0, min(1, begin + 1 - time.monotonic())))
            return False
        need(answer.status == 200, f"GET {answer.status} {answer.body!r}")
        self.take(answer)
        return True

    def settle(self, body_is_final=False):
        """Polls until nothing is in flight."""
        end = time.monotonic() + self.seconds
        while in_flight(self.tx, body_is_final):
            need(time.monotonic() < end, f"upstream timeout: {self.tx}")
            self.get()
        return self.tx

    def until(self, key):
        end = time.monotonic() + self.seconds
        while key not in self.tx:
            need(time.monotonic() < end, f"no {key}: {self.tx}")
            self.get()
        return self.tx[key]

    def patch(self, **delta):
        check_request(delta, UPDATE, True)
        answer = self.ask("PATCH", self.location, delta, if_match=self.etag,
                          request_timeout=self.seconds - 1)
        need(answer.status == 200, f"PATCH {answer.status} {answer.body!r}")
        return self.take(answer)

    def rcpt(self, address):
        """As the gateway sends a RCPT; its answer."""
        number = len(self.tx.get("rcpt_to", []))
        offset = {"rcpt_to_list_offset": number} if number else {}
        self.patch(**offset, rcpt_to=[{"m": address}])
        return self.settle()["rcpt_response"][number]["code"]

    def heartbeat(self):
        answer = self.ask("PATCH", self.location, b"", if_match=self.etag,
                          request_timeout=self.seconds - 1)
        need(answer.status == 200, f"heartbeat {answer.status}")
        return self.take(answer)

    def put(self, uri, piece, first, total):
        """One piece; how much the server holds now."""
        headers = {}
        whole = first == 0 and total == len(piece)
        if not whole:
            last = first + len(piece) - 1
            headers["content_range"] = f"bytes {first}-{last}/{'*' if total is None else total}"
        answer = self.ask("PUT", uri, piece, **headers)
        need(answer.status in (200, 416), f"PUT {answer.status} {answer.body!r}")
        return self.held(answer, len(piece))

    def held(self, answer, alone):
        """LAST + 1; without the field the piece is taken for all there is."""
        text = answer.headers.get("content-range")
        if text is None:
            return alone
        found = re.fullmatch(r"bytes 0-(\d+)/(\d+|\*)", text)
        need(found, f"content-range {text!r}")
        return int(found.group(1)) + 1

    def upload(self, data, name=None, late_end=False):
        """In pieces of chunk_size, going on from where the server is; `late_end`: the end is not
        known when the last piece is sent."""
        uri = blob_uris(self.tx["body"])[name]["uri"]
        size = self.chunk_size or len(data)
        at = 0
        while at < len(data):
            piece = data[at:at + size]
            last = at + len(piece) == len(data) and not late_end
            now = self.put(uri, piece, at, len(data) if last else None)
            need(now <= at + len(piece), "the server claims more than was sent")
            need(now != at, "no progress")
            at = now
        if late_end:
            answer = self.ask("PUT", uri, b"", x_finalize_blob_length=len(data))
            need(answer.status == 200, f"finalize {answer.status}")

    def cancel(self):
        answer = self.ask("POST", self.location + "/cancel", b"")
        need(answer.status == 200, f"cancel {answer.status}")


# ---- the server ----

class Tx:
    def __init__(self, number, request, first_version):
        self.id, self.version = f"tx{number}", first_version
        self.request = dict(request)
        self.mail_response = self.data_response = self.final = None
        self.rcpt_response = []
        self.rcpts = list(request.get("rcpt_to", []))
        self.cancelled = False
        self.body = None       # bytes, once it is complete
        self.held = b""
        self.spec = None       # of a receiver
        self.parts = {}        # blob id -> bytes or None
        self.output = request.get("filter_output")
        self.order = []        # of uploads
        self.etags = set()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 60

    def log_message(self, *_):
        pass

    def setup(self):
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def handle_any(self):
        peer = self.server.peer
        try:
            body = self.read_body()
            with peer.lock:
                peer.requests.append((self.command, self.path, dict(
                    (key.lower(), value) for key, value in self.headers.items()), body))
            status, headers, answer = peer.serve(self, body)
        except Fault as fault:
            peer.fault(f"{self.command} {self.path}: {fault}")
            status, headers, answer = 400, {}, b""
        if isinstance(answer, dict):
            answer = json.dumps(answer).encode()
            headers["content-type"] = JSON
        elif answer:
            headers["content-type"] = "text/plain; charset=utf-8"
        self.send_response_only(status)
        for key, value in headers.items():
            self.send_header(key, value)
        if status != 304:
            self.send_header("content-length", str(len(answer)))
        self.end_headers()
        if status != 304:
            self.wfile.write(answer)

    do_GET = do_POST = do_PATCH = do_PUT = handle_any

    def read_body(self):
        if self.headers.get("transfer-encoding") == "chunked":
            pieces = []
            while True:
                size = int(self.rfile.readline().strip(), 16)
                pieces.append(self.rfile.read(size))
                self.rfile.readline()
                if size == 0:
                    return b"".join(pieces)
        return self.rfile.read(int(self.headers.get("content-length", 0)))


class Server:
    """`role`: "gateway" (what a router talks to), "router" (what a gateway talks to) or "receiver"
    (an application).  `on_mail(tx)`, `on_rcpt(tx, address)`, `on_data(tx)` may answer with (code,
    text).  `port` is there at once."""

    def __init__(self, role, on_mail=None, on_rcpt=None, on_data=None):
        self.role = role
        self.on_mail, self.on_rcpt, self.on_data = on_mail, on_rcpt, on_data
        self.lock = threading.RLock()
        self.news = threading.Condition(self.lock)
        self.txs, self.requests, self.faults = {}, [], []
        self.moved = set()      # methods that are redirected once
        self.lose_bytes = 0     # of the first range of an upload
        self.unchanged = 0      # reads that are answered 304 at once
        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.http.peer = self
        self.port = self.http.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.05,), daemon=True)
        self.thread.start()

    def close(self):
        self.http.shutdown()
        self.http.server_close()
        self.thread.join(timeout=5)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def fault(self, text):
        with self.lock:
            self.faults.append(text)

    def of(self, method, suffix=""):
        """The requests of one kind: (headers, body)."""
        with self.lock:
            return [(headers, body) for verb, path, headers, body in self.requests
                    if verb == method and path.endswith(suffix)]

    # ---- answers ----

    def think(self, tx):
        """One step of the backend, if there is one to take."""
        if tx.mail_response is None and "mail_from" in tx.request:
            tx.mail_response = self.on_mail and self.on_mail(tx) or (250, "ok")
        elif len(tx.rcpt_response) < len(tx.rcpts):
            address = tx.rcpts[len(tx.rcpt_response)]["m"]
            tx.rcpt_response.append(
                (503, "5.5.1 failed precondition: MAIL") if tx.mail_response[0] >= 300
                else self.on_rcpt and self.on_rcpt(tx, address) or (250, "ok"))
        elif tx.body is not None and tx.data_response is None and any(
                code < 300 for code, _ in tx.rcpt_response):
            tx.data_response = self.on_data and self.on_data(tx) or (250, "2.0.0 taken")
            if self.role == "router":
                tx.final = "upstream response success"
        else:
            return False
        tx.version += 1
        return True

    def read(self, tx):
        def response(pair):
            return {"code": pair[0], "message": pair[1]}
        out = {key: tx.request[key] for key in ("remote_host", "local_host") if key in tx.request}
        if "mail_from" in tx.request:
            out["mail_from"] = {}
        if tx.mail_response:
            out["mail_response"] = response(tx.mail_response)
        if tx.rcpts:
            out["rcpt_to"] = [{} for _ in tx.rcpts]
        if tx.rcpt_response:
            out["rcpt_response"] = [response(each) for each in tx.rcpt_response]
        if tx.data_response:
            out["data_response"] = response(tx.data_response)
        if self.role == "router":
            out["attempt_count"] = 1
        out["body"] = self.read_blobs(tx)
        if tx.cancelled:
            out["cancelled"] = True
        if tx.final:
            out["final_attempt_reason"] = tx.final
        if "sender" in tx.request:
            out["sender"] = {}
        if tx.output is not None:
            out["filter_output"] = {}
        check_read(out)
        return out

    def read_blobs(self, tx):
        base = f"{self.url}/transactions/{tx.id}"
        status = {"uri": base + "/body"}
        if tx.body is not None or self.role == "receiver":
            status["finalized"] = tx.body is not None
        body = {"blob_status": status}
        if self.role == "receiver" and tx.spec is None:
            body["message_builder"] = {"uri": base + "/message_builder"}
        elif self.role == "receiver":
            body["message_builder"] = {"blob_status": {
                name: {"uri": f"{base}/blob/{name}", "finalized": data is not None}
                for name, data in tx.parts.items()}}
        return body

    def show(self, status, tx, **headers):
        tx.etags.add(str(tx.version))
        return status, dict(headers, etag=str(tx.version)), self.read(tx)

    # ---- requests ----

    def serve(self, request, body):
        with self.lock:
            path = urllib.parse.urlsplit(request.path).path
            timeout = request.headers.get("request-timeout")
            need(timeout is None or re.fullmatch(r"[1-9]\d*", timeout), f"timeout {timeout!r}")
            if request.command in self.moved and path.startswith("/transactions/"):
                self.moved.discard(request.command)
                return 308, {"location": self.url + path}, b""
            if request.command == "POST" and re.fullmatch(r"/senders/[^/]+/transactions", path):
                return self.create(request, body)
            found = re.fullmatch(r"/transactions/([^/]+)(?:/(.+))?", path)
            need(found and found.group(1) in self.txs, "no such transaction")
            tx, what = self.txs[found.group(1)], found.group(2)
            verb = (request.command, what)
            if verb == ("GET", None):
                return self.get(request, tx)
            if verb == ("PATCH", None):
                return self.patch(request, tx, body)
            if verb == ("POST", "cancel"):
                return self.cancel(request, tx, body)
            if verb == ("POST", "message_builder"):
                return self.set_spec(request, tx, body)
            need(request.command == "PUT", "no such route")
            return self.put(request, tx, what, body)

    def create(self, request, body):
        need(request.headers.get("content-type") == JSON, "content-type")
        tx = json.loads(body)
        check_request(tx, CREATE - {"body"})
        need("mail_from" in tx, "no mail_from")
        if self.role == "gateway":
            need(is_host_port(tx.get("remote_host")), "no remote_host")
            need(tx.get("sender", {}).get("tag"), "no sender.tag")
        made = Tx(len(self.txs), tx, 2 if self.role == "gateway" else 1)
        self.txs[made.id] = made
        if self.role == "receiver":
            while self.think(made):
                pass
            made.version = 1
        return self.show(201, made, location=f"{self.url}/transactions/{made.id}")

    def get(self, request, tx):
        known = request.headers.get("if-none-match")
        need(known is None or known in tx.etags, f"if-none-match {known!r} was never an etag")
        if self.role == "receiver" or known is None:
            return self.show(200, tx)
        if self.unchanged and known == str(tx.version):
            self.unchanged -= 1
            return 304, {"etag": known}, b""
        end = time.monotonic() + min(int(request.headers.get("request-timeout", 30)), 30)
        while known == str(tx.version) and not self.think(tx):
            left = end - time.monotonic()
            if left <= 0 or not self.news.wait(left):
                return 304, {"etag": known}, b""
        return self.show(200, tx)

    def check_match(self, request, tx):
        match = request.headers.get("if-match")
        need(match is not None, "no if-match")
        need(match in tx.etags, f"if-match {match!r} was never an etag")
        return match == str(tx.version)

    def patch(self, request, tx, body):
        kind = request.headers.get("content-type")
        need(kind == JSON if body else kind is None, f"content-type {kind!r}")
        if self.role != "receiver" and not self.check_match(request, tx):
            return 412, {}, b"update conflict"
        if body:
            delta = json.loads(body)
            check_request(delta, UPDATE, True)
            need("body" not in delta, "a body in an update")
            need(self.role != "receiver" or set(delta) == {"filter_output"}, f"update {delta}")
            need("mail_from" not in delta, "mail_from twice")
            if "rcpt_to" in delta:
                need(delta.get("rcpt_to_list_offset", 0) == len(tx.rcpts), "offset")
                tx.rcpts += delta["rcpt_to"]
            if "filter_output" in delta:
                tx.output = dict(tx.output or {}, **delta["filter_output"])
        tx.version += 1
        self.news.notify_all()
        return self.show(200, tx)

    def cancel(self, request, tx, body):
        need(not body and "if-match" not in request.headers, "a cancel with more")
        if not tx.final:
            tx.cancelled = True
            tx.version += 1
            if self.role == "router":
                tx.final = "downstream cancelled"
        self.news.notify_all()
        return 200, {}, b""

    def set_spec(self, request, tx, body):
        need(self.role == "receiver", "no such route")
        need(request.headers.get("content-type") == JSON, "content-type")
        self.check_match(request, tx)
        need(tx.spec is None and not tx.order, "the description is not first")
        tx.spec = json.loads(body)

        def walk(node):
            if isinstance(node, dict):
                content = node.get("content")
                if isinstance(content, dict):
                    need(len(content) == 1 and set(content) <= {"inline", "create_id"},
                         f"content {content}")
                    if "create_id" in content:
                        tx.parts[content["create_id"]] = None
                for key, each in node.items():
                    if key != "headers":
                        walk(each)
            elif isinstance(node, list):
                for each in node:
                    walk(each)
        walk(tx.spec)
        tx.version += 1
        return self.show(200, tx)

    def put(self, request, tx, what, data):
        need("if-match" not in request.headers, "if-match on an upload")
        need(any(code < 300 for code, _ in tx.rcpt_response), "an upload without recipients")
        tx.order.append(what)
        if self.role == "receiver":
            return self.put_whole(request, tx, what, data)
        need(what == "body", "parts are for receivers")
        return self.put_range(request, tx, data)

    def put_whole(self, request, tx, what, data):
        need("content-range" not in request.headers, "receiver does not accept chunked PUT")
        if what == "body":
            need(tx.body is None, "body already exists")
            need(None not in tx.parts.values(), "the message before its parts")
            tx.body = data
            tx.data_response = (250, "ok")
        else:
            name = what.partition("/")[2]
            need(tx.parts.get(name, b"") is None, f"no blob {name!r}, or twice")
            tx.parts[name] = data
        tx.version += 1
        return 200, {}, {}

    def put_range(self, request, tx, data):
        text = request.headers.get("content-range")
        total = request.headers.get("x-finalize-blob-length")
        if total is not None:
            need(not data and text is None, "finalize with more")
            need(int(total) == len(tx.held), f"finalize {total} of {len(tx.held)}")
        elif text is None:
            need(not tx.held and tx.body is None, "whole, after ranges")
            tx.held, total = data, len(data)
        else:
            found = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", text)
            need(found and int(found.group(2)) - int(found.group(1)) + 1 == len(data), text)
            if self.lose_bytes and not tx.held:
                data, self.lose_bytes = data[:-self.lose_bytes], 0
            elif int(found.group(1)) != len(tx.held):
                return 416, {"content-range": f"bytes 0-{len(tx.held) - 1}/*"}, b"invalid range"
            tx.held += data
            total = found.group(3) if found.group(3) != "*" else None
        if total is not None and int(total) == len(tx.held):
            tx.body = tx.held
            tx.version += 1
            self.news.notify_all()
        end = total if total is not None else "*"
        return 200, {"content-range": f"bytes 0-{len(tx.held) - 1}/{end}"}, {}
