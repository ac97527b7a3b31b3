# SPDX-License-Identifier: Apache-2.0
"""Started by a service manager: sockets that it opened (sd_listen_fds), and what it is told
(sd_notify).  activate.py does the manager's part."""
import os
import signal
import socket
import sys

import pytest

from devkit import procs
from mail import BOB, Raw, message, submit, token
from world import BINARY, HERE

ENTRY = "    - addr: [\"127.0.0.1\", 0]\n      endpoint: {0}\n"


def named(text):
    """Both services ask for sockets of a manager."""
    for endpoint, name in (("mx", "smtp"), ("msa", "submission")):
        entry = ENTRY.format(endpoint)
        assert text.count(entry) == 1
        text = text.replace(entry, f"{entry}      socket: {name}\n")
    return text


class Manager:
    """Starts `koukan serve` with sockets, and hears what it tells."""

    def __init__(self, world):
        self.world = world
        self.files = [world.config("gateway.yaml", named), world.config("router.yaml")]
        self.path = os.path.join(world.folder, "notify")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)
        self.socket.settimeout(20)

    def start(self, *options, wait=True, pass_fds=()):
        server = procs.Server("serve", sys.executable,
                              [os.path.join(HERE, "activate.py"), *options, "--", BINARY, "serve",
                               *self.files], self.world.folder, env={"NOTIFY_SOCKET": self.path},
                              pass_fds=pass_fds)
        self.world.procs.append(server)
        self.world.smtp_server = self.world.router_server = server
        if wait:
            server.wait_ready()
            self.world.servers.append(server)
        return server

    def told(self):
        return self.socket.recv(4096).decode()

    def silent(self):
        self.socket.setblocking(False)
        with pytest.raises(BlockingIOError):
            self.socket.recv(4096)
        self.socket.settimeout(20)


@pytest.fixture(name="manager")
def manager_fixture(world):
    manager = Manager(world)
    yield manager
    manager.socket.close()


@pytest.mark.threads
def test_sockets_and_states(world, manager):
    hop = world.hop()
    # Names decide, not the order.
    server = manager.start("--socket", "submission=0", "--socket", "smtp=0")
    assert manager.told() == "READY=1"
    assert world.ingress != world.submission
    for port in (world.ingress, world.submission):
        mark = token()
        assert submit(port, mark, data=message(mark), rcpts=[BOB])[0] == 250
        hop.wait_for(mark)
    # The peer of a dual-stack socket is an IPv4 client, to policies and in Received.
    assert "[127.0.0.1]" in hop.taken[0].text and "ffff" not in hop.taken[0].text
    server.signal(signal.SIGHUP)
    state, _, stamp = manager.told().partition("\nMONOTONIC_USEC=")
    assert state == "RELOADING=1" and int(stamp) > 0
    assert manager.told() == "READY=1"
    world.stop_servers()
    assert manager.told() == "STOPPING=1"
    manager.silent()


def test_without_a_manager_the_address_counts(world, manager):
    hop = world.hop()
    manager.start()
    assert manager.told() == "READY=1"
    with socket.create_connection(("127.0.0.1", world.ingress)):
        pass
    mark = token()
    assert submit(world.ingress, mark)[0] == 250
    hop.wait_for(mark)


def test_clients_wait_in_the_socket_for_the_next_process(world, manager):
    """A restart loses no connection: who comes between two processes is served by the second."""
    hop = world.hop()
    with socket.create_server(("127.0.0.1", 0)) as smtp, \
            socket.create_server(("127.0.0.1", 0)) as submission:
        given = ["--fd", f"smtp={smtp.fileno()}", "--fd", f"submission={submission.fileno()}"]
        fds = (smtp.fileno(), submission.fileno())
        manager.start(*given, pass_fds=fds)
        port = smtp.getsockname()[1]
        assert world.ingress == port
        world.stop_servers()
        with Raw(port, greet=False, ehlo=False) as client:
            manager.start(*given, pass_fds=fds)
            assert client.reply()[0] == 220
            assert client.code("EHLO localhost") == 250
            mark = token()
            assert client.works(mark)[0] == 250
            hop.wait_for(mark)


@pytest.mark.parametrize("options, text", [
    (["--socket", "smtp=0", "--socket", "msa=0"],
     "smtp_listener msa/smtp-msa: socket activation hands over no socket named 'submission', only "
     "'smtp', 'msa'"),
    (["--socket", "smtp=0", "--socket", "submission=0", "--socket", "submissions=0"],
     "socket activation hands over a socket named 'submissions', which no SMTP service asks for"),
    (["--socket", "smtp=0", "--socket", "submission=0", "--names", "smtp"],
     "LISTEN_FDS is 2, but LISTEN_FDNAMES has 1 names: 'smtp'"),
])
def test_names_that_do_not_fit(world, manager, options, text):
    server = manager.start(*options, wait=False)
    assert server.finish() == 1
    assert text in server.err(), server.err()
    manager.silent()
    world.procs.remove(server)


def test_a_manager_that_is_gone_is_no_reason_not_to_run(world, manager):
    os.unlink(manager.path)
    server = manager.start("--socket", "smtp=0", "--socket", "submission=0")
    procs.wait_until(lambda: "server.notify_failed" in server.err(), "a warning", alive=server)
    with Raw(world.ingress):
        pass
