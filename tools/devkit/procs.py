# SPDX-License-Identifier: Apache-2.0
"""Processes that a demo, a benchmark or a test starts: ready by condition, ended by id."""
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time

from devkit.common import Failed

LISTENING = re.compile(r"listening on (?:https?://)?([^\s:]+|\[[^\]]+\]):(\d+)")


def wait_until(condition, what, seconds=15.0, alive=None, pause=0.005):
    """The first true value of condition(), asked every `pause` seconds; Failed when it takes too
    long or `alive` has died."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if alive is not None and alive.popen.poll() is not None:
            raise Failed(f"{alive.name} ended with {alive.popen.returncode} before {what}\n"
                         + alive.tail())
        if time.monotonic() > end:
            raise Failed(f"waited {seconds:g} s in vain for {what}"
                         + ("\n" + alive.tail() if alive is not None else ""))
        time.sleep(pause)


def ephemeral_range():
    """The ports that the kernel gives to outgoing connections."""
    try:
        with open("/proc/sys/net/ipv4/ip_local_port_range", encoding="ascii") as file:
            low, high = file.read().split()
        return int(low), int(high)
    except (OSError, ValueError):
        return 32768, 60999


def free_port():
    """A port that was free a moment ago, for configurations that must name it in advance.  It lies
    outside the ephemeral range: inside, an outgoing connection of the load may take it between
    this call and the server's bind."""
    low, high = ephemeral_range()
    rest = range(10000, low) if low > 12000 else range(high + 1, 65536)
    if len(rest) < 2000:
        rest = range(10000, 65536)
    for _ in range(200):
        port = random.choice(rest)
        if port not in named_ports and can_bind(port):
            named_ports.add(port)
            return port
    raise Failed("no free port found")


named_ports = set()  # by this process: two of one configuration must differ


def can_bind(port, ipv4="127.0.0.1"):
    """Is the port free on IPv4 and IPv6 loopback?"""
    for family, address in ((socket.AF_INET, ipv4), (socket.AF_INET6, "::1")):
        try:
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((address, port))
        except OSError as error:
            if family == socket.AF_INET or error.errno == 98:  # EADDRINUSE
                return False
    return True


class Proc:
    """One child process with its output in files.  Its end is noticed by `stop` or `finish`."""

    def __init__(self, name, argv, folder, *, env=None, stdin=None, cwd=None, new_session=False,
                 pass_fds=()):
        self.name, self.argv = name, argv
        self.out_path = os.path.join(folder, name + ".out")
        self.err_path = os.path.join(folder, name + ".err")
        with open(self.out_path, "ab") as out, open(self.err_path, "ab") as err:
            self.popen = subprocess.Popen(
                argv, stdin=stdin or subprocess.DEVNULL, stdout=out, stderr=err, cwd=cwd,
                start_new_session=new_session, pass_fds=pass_fds,
                env=dict(os.environ, **(env or {})))
        self.pid = self.popen.pid

    def out(self):
        with open(self.out_path, encoding="utf-8", errors="replace") as file:
            return file.read()

    def err(self):
        with open(self.err_path, encoding="utf-8", errors="replace") as file:
            return file.read()

    def tail(self, count=4000):
        return f"--- {self.name}: standard error\n{self.err()[-count:]}"

    def is_alive(self):
        return self.popen.poll() is None

    def wait_listening(self, seconds=15.0):
        """The (host, port) of a tool that prints `listening on ...`."""
        found = wait_until(lambda: LISTENING.search(self.out()), "its port", seconds, alive=self)
        return found.group(1), int(found.group(2))

    def signal(self, number):
        if self.is_alive():
            self.popen.send_signal(number)

    def finish(self, seconds=20.0):
        """Waits for the end; the exit code."""
        try:
            return self.popen.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            raise Failed(f"{self.name} did not end within {seconds:g} s\n" + self.tail()) from None

    def stop(self, seconds=30.0):
        """SIGTERM and the exit code; SIGKILL and Failed when that does not help."""
        self.signal(signal.SIGTERM)
        try:
            return self.popen.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
            raise Failed(f"{self.name} did not end on SIGTERM within {seconds:g} s\n"
                         + self.tail()) from None

    def kill(self):
        if self.is_alive():
            self.popen.kill()
        self.popen.wait()


class Server(Proc):
    """`koukan serve|gateway|router` with --listen-info."""

    def __init__(self, name, binary, arguments, folder, *, env=None, pass_fds=()):
        self.info_path = os.path.join(folder, name + ".listen.json")
        if os.path.exists(self.info_path):
            os.unlink(self.info_path)
        super().__init__(name, [binary, *arguments, "--listen-info", self.info_path], folder,
                         env=env, pass_fds=pass_fds)
        self.info = None

    def wait_ready(self, seconds=20.0):
        def read():
            try:
                with open(self.info_path, encoding="utf-8") as file:
                    return json.load(file)
            except FileNotFoundError:
                return None
        self.info = wait_until(read, "listening", seconds, alive=self)
        return self.info

    def smtp_port(self, tag):
        for entry in self.info["smtp"]:
            if entry["tag"] == tag:
                return entry["port"]
        raise Failed(f"{self.name}: no SMTP listener with tag {tag}: {self.info}")

    def smtp_ports(self):
        return [entry["port"] for entry in self.info["smtp"]]


class Group:
    """Owns processes and a scratch folder; `close` ends all, the last started first."""

    def __init__(self, prefix):
        self.folder = tempfile.mkdtemp(prefix=prefix)
        self.procs = []

    def add(self, proc):
        self.procs.append(proc)
        return proc

    def close(self, keep_folder=False):
        problems = []
        for proc in reversed(self.procs):
            try:
                if proc.is_alive():
                    proc.stop()
            except Failed as error:
                problems.append(str(error))
        self.procs = []
        if not keep_folder:
            shutil.rmtree(self.folder, ignore_errors=True)
        if problems:
            raise Failed("\n".join(problems))


# ---- accounting, from /proc ----

TICK = os.sysconf("SC_CLK_TCK")


def stat_fields(pid):
    """The fields of /proc/PID/stat behind the name (index 0 is the state); None when it is gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def children(pid):
    """Ids of the direct children."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            fields = stat_fields(name)
            if fields is not None and int(fields[1]) == pid:
                found.append(int(name))
    return found


def cpu_seconds(pid, with_children=False):
    """User and system time of a process with all its threads; `with_children` adds the children
    that it has waited for and those alive."""
    fields = stat_fields(pid)
    if fields is None:
        return 0.0
    ticks = int(fields[11]) + int(fields[12])
    if not with_children:
        return ticks / TICK
    ticks += int(fields[13]) + int(fields[14])
    return ticks / TICK + sum(cpu_seconds(child, True) for child in children(pid))


def resident_bytes(pid):
    with open(f"/proc/{pid}/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def open_files(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))
