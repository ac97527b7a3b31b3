# SPDX-License-Identifier: Apache-2.0
"""What systemd does for a socket unit, in small: opens the sockets, gives up the user it is, and
becomes the program, which finds them from descriptor 3 on (sd_listen_fds(3)).

  activate.py [--user UID] [--socket NAME=PORT]... [--fd NAME=FD]... [--names TEXT]
              -- PROGRAM ARGUMENT...

Sockets are dual-stack, as those of `ListenStream=25`; where there is no IPv6, IPv4."""
import os
import socket
import sys

FIRST = 3


def listening(port):
    try:
        sock = socket.socket(socket.AF_INET6)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        any_address = "::"
    except OSError:
        sock = socket.socket(socket.AF_INET)
        any_address = "0.0.0.0"
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((any_address, port))
    sock.listen(128)
    return sock


def main(argv):
    at = argv.index("--")
    options, program = argv[:at], argv[at + 1:]
    sockets, names, told, user = [], [], None, None
    for option, value in zip(options[::2], options[1::2]):
        if option == "--socket":
            name, _, port = value.partition("=")
            names.append(name)
            sockets.append(listening(int(port)))
        elif option == "--fd":
            name, _, number = value.partition("=")
            names.append(name)
            sockets.append(socket.socket(fileno=int(number)))
        elif option == "--names":
            told = value
        elif option == "--user":
            user = int(value)
    high = [os.dup(sock.fileno()) for sock in sockets]
    high = [os.dup2(fd, 100 + number) for number, fd in enumerate(high)]
    for number, fd in enumerate(high):
        os.dup2(fd, FIRST + number, inheritable=True)
        os.set_inheritable(fd, False)
    if sockets:
        os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(sockets)),
                          LISTEN_FDNAMES=told if told is not None else ":".join(names))
    if user is not None:
        os.setgroups([])
        os.setgid(user)
        os.setuid(user)
    os.execvp(program[0], program)


if __name__ == "__main__":
    main(sys.argv[1:])
