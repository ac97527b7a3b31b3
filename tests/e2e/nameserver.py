# SPDX-License-Identifier: Apache-2.0
"""A name server for tests, on dnspython: a zone in a dict, with the faults that mail has to live
with.  Serves UDP and TCP on one port of 127.0.0.1."""
import socket
import socketserver
import struct
import threading
import time

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset

SERVFAIL, SILENT, TRUNCATED = "SERVFAIL", "SILENT", "TRUNCATED"


def quoted(text):
    """A TXT record in presentation form, cut into strings of 255 bytes."""
    pieces = [text[at:at + 255] for at in range(0, len(text), 255)] or [""]
    return " ".join('"' + piece.replace("\\", "\\\\").replace('"', '\\"') + '"' for piece in pieces)


class Nameserver:
    """`zone`: {name: {type: [records] or a fault}}; TXT records are given as plain text, "delay"
    is the number of seconds that an answer takes, "fault" one that holds for all types.  Names that are not in it do not exist.  `asked`
    counts questions by (name, type)."""

    def __init__(self, zone, ttl=60):
        self.ttl = ttl
        self.zone = {name.lower().rstrip("."): rows for name, rows in zone.items()}
        self.asked = {}
        self.lock = threading.Lock()
        outer = self

        class Udp(socketserver.BaseRequestHandler):
            def handle(self):
                data, sock = self.request
                answer = outer.answer(data, False)
                if answer:
                    sock.sendto(answer, self.client_address)

        class Tcp(socketserver.BaseRequestHandler):
            def handle(self):
                head = self.request.recv(2, socket.MSG_WAITALL)
                if len(head) < 2:
                    return
                data = self.request.recv(struct.unpack(">H", head)[0], socket.MSG_WAITALL)
                answer = outer.answer(data, True)
                if answer:
                    self.request.sendall(struct.pack(">H", len(answer)) + answer)

        self.udp, self.tcp = self.bind(Udp, Tcp)
        self.port = self.udp.server_address[1]
        self.address = f"127.0.0.1@{self.port}"
        for server in (self.udp, self.tcp):
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()

    @staticmethod
    def bind(udp_handler, tcp_handler):
        """Both on one port that the kernel chose for the first."""
        for _ in range(50):
            udp = socketserver.ThreadingUDPServer(("127.0.0.1", 0), udp_handler)
            udp.daemon_threads = True
            try:
                tcp = socketserver.ThreadingTCPServer(udp.server_address, tcp_handler)
            except OSError:
                udp.server_close()
                time.sleep(0.01)
                continue
            tcp.daemon_threads = True
            return udp, tcp
        raise RuntimeError("no port is free for UDP and TCP")

    def close(self):
        for server in (self.udp, self.tcp):
            server.shutdown()
            server.server_close()

    def answer(self, data, over_tcp):
        query = dns.message.from_wire(data)
        question = query.question[0]
        name = question.name.to_text().lower().rstrip(".")
        kind = dns.rdatatype.to_text(question.rdtype)
        with self.lock:
            self.asked[name, kind] = self.asked.get((name, kind), 0) + 1
        time.sleep(self.zone.get(name, {}).get("delay", 0))
        reply = dns.message.make_response(query)
        reply.flags |= dns.flags.RA
        fault = self.fill(reply, question, name, kind)
        if fault == SILENT:
            return None
        if fault == SERVFAIL:
            reply.set_rcode(dns.rcode.SERVFAIL)
        if fault == TRUNCATED and not over_tcp:
            reply.answer = []
            reply.flags |= dns.flags.TC
        try:
            return reply.to_wire(max_size=65535 if over_tcp else 1232, want_shuffle=False)
        except dns.exception.TooBig:
            reply.answer = []
            reply.flags |= dns.flags.TC
            return reply.to_wire()

    def fill(self, reply, question, name, kind):
        owner = question.name
        for _ in range(10):
            rows = self.zone.get(name)
            if rows is None:
                if not any(other.endswith("." + name) for other in self.zone):
                    reply.set_rcode(dns.rcode.NXDOMAIN)
                return None
            records = rows.get(kind, [])
            fault = rows.get("fault")
            if isinstance(records, str):
                return records
            if records:
                texts = [quoted(record) for record in records] if kind == "TXT" else records
                reply.answer.append(dns.rrset.from_text(owner, self.ttl, dns.rdataclass.IN, kind,
                                                        *texts))
                return fault
            if "CNAME" not in rows:
                return fault
            reply.answer.append(dns.rrset.from_text(owner, self.ttl, dns.rdataclass.IN, "CNAME",
                                                    *rows["CNAME"]))
            owner = dns.name.from_text(rows["CNAME"][0])
            name = rows["CNAME"][0].lower().rstrip(".")
        return None
