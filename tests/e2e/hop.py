# SPDX-License-Identifier: Apache-2.0
"""A scripted SMTP next hop that keeps what it gets, byte for byte."""
import socket
import threading
import time


class Message:
    def __init__(self, ehlo, mail_from, rcpts, data):
        self.ehlo, self.mail_from, self.rcpts, self.data = ehlo, mail_from, rcpts, data

    @property
    def text(self):
        return self.data.decode("utf-8", "replace")


class Hop:
    """Listens on host:port (0: any) at once.  `on_mail(address)`, `on_rcpt(address)` and
    `on_data(message)` may return another reply ("451 later"), or None for 250, or DROP to cut the
    connection without a reply."""

    DROP = object()

    def __init__(self, port=0, on_mail=None, on_rcpt=None, on_data=None, greeting="220 hop ESMTP",
                 extensions=("PIPELINING", "8BITMIME", "SMTPUTF8", "SIZE 50000000"),
                 host="127.0.0.1"):
        self.on_mail, self.on_rcpt, self.on_data = on_mail, on_rcpt, on_data
        self.greeting, self.extensions = greeting, extensions
        self.lock = threading.Lock()
        self.taken = []       # messages answered 250
        self.cut = []         # data of messages whose connection ended before the dot
        self.sessions = 0
        self.commands = []
        self.connections = set()
        self.host = host
        self.listener = socket.create_server((host, port), backlog=128)
        self.port = self.listener.getsockname()[1]
        self.thread = threading.Thread(target=self.accept, daemon=True)
        self.thread.start()

    def accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            with self.lock:
                self.sessions += 1
                self.connections.add(connection)
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection):
        try:
            self.talk(connection, connection.makefile("rb"))
        except (OSError, ValueError):
            pass
        finally:
            with self.lock:
                self.connections.discard(connection)
            connection.close()

    def talk(self, connection, lines):
        def say(text):
            connection.sendall(text.encode() + b"\r\n")
        say(self.greeting)
        ehlo, sender, rcpts = "", None, []
        for line in lines:
            command = line.decode("utf-8", "replace").rstrip("\r\n")
            with self.lock:
                self.commands.append(command)
            verb = command[:4].upper()
            if verb in ("EHLO", "HELO", "LHLO"):
                ehlo = command[5:]
                names = ["hop", *(self.extensions if verb != "HELO" else ())]
                connection.sendall("".join(
                    f"250{'-' if i < len(names) - 1 else ' '}{name}\r\n"
                    for i, name in enumerate(names)).encode())
            elif verb == "MAIL":
                reply = self.on_mail and self.on_mail(address_of(command))
                if reply is Hop.DROP:
                    return
                say(reply or "250 sender ok")
                sender, rcpts = (None if reply else command), []
            elif verb == "RCPT":
                reply = self.on_rcpt and self.on_rcpt(address_of(command))
                if reply is Hop.DROP:
                    return
                say(reply or "250 recipient ok")
                if not reply:
                    rcpts.append(command)
            elif verb == "DATA":
                if sender is None or not rcpts:
                    say("503 no")
                    continue
                say("354 go")
                message = self.read_data(lines, Message(ehlo, sender, rcpts, b""))
                if message is None:
                    return
                reply = self.on_data and self.on_data(message)
                if reply is Hop.DROP:
                    return
                if not reply:
                    with self.lock:
                        self.taken.append(message)
                say(reply or "250 2.0.0 taken by the hop")
                sender, rcpts = None, []
            elif verb == "RSET":
                sender, rcpts = None, []
                say("250 ok")
            elif verb == "QUIT":
                say("221 bye")
                return
            else:
                say("250 ok" if verb == "NOOP" else "500 what")

    def read_data(self, lines, message):
        data = []
        for line in lines:
            if line == b".\r\n":
                message.data = b"".join(data)
                return message
            data.append(line[1:] if line.startswith(b".") else line)
        with self.lock:
            self.cut.append(b"".join(data))
        return None

    def with_text(self, token):
        """Messages that contain the text."""
        with self.lock:
            return [message for message in self.taken if token.encode() in message.data]

    def wait_for(self, token, seconds=20.0):
        """The first message that contains the text."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            found = self.with_text(token)
            if found:
                return found[0]
            time.sleep(0.005)
        raise AssertionError(f"the next hop got nothing with {token!r} within {seconds:g} s; "
                             f"commands: {self.commands[-20:]}")

    def close(self):
        try:
            self.listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.listener.close()
        with self.lock:
            for connection in self.connections:
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass
        self.thread.join(timeout=5)


def address_of(command):
    return command.partition("<")[2].partition(">")[0]
