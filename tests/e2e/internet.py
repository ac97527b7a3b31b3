# SPDX-License-Identifier: Apache-2.0
"""A small Internet in network namespaces: hosts on one wire, a root name server (nsd), and mail
sites made of config/examples/public-internet.  Root is needed; nothing of it is seen outside the
namespaces, and `close` takes all of it away."""
import contextlib
import ctypes
import ipaddress
import os
import secrets
import shutil
import smtplib
import socket
import subprocess
import sys
import tempfile

from hop import Hop
from world import BINARY, HERE, RELEASE, ROOT, World

from devkit import procs  # world.py sets the path

EXAMPLES = os.path.join(ROOT, "config", "examples", "public-internet")
NOBODY = 65534
DNS = "203.0.113.53"
CLONE_NEWNET = 0x40000000
LIBC = ctypes.CDLL(None, use_errno=True)


class CannotMake(Exception):
    """This machine does not let us make namespaces, and why."""


def ip(*arguments, check=True):
    done = subprocess.run(["ip", *arguments], check=False, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE)
    if check and done.returncode != 0:
        raise RuntimeError(f"ip {' '.join(arguments)}: {done.stderr.decode().strip()}")
    return done


def setns(fd):
    if LIBC.setns(fd, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


class Host:
    """One namespace with its addresses."""

    def __init__(self, name, space, addresses):
        self.name, self.space, self.addresses = name, space, addresses

    def argv(self, *arguments):
        return ["ip", "netns", "exec", self.space, *arguments]

    @contextlib.contextmanager
    def inside(self):
        """Sockets that are made here are in the host; they stay there."""
        ours = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        theirs = os.open(f"/run/netns/{self.space}", os.O_RDONLY)
        try:
            setns(theirs)
            try:
                yield
            finally:
                setns(ours)
        finally:
            os.close(ours)
            os.close(theirs)


class Internet:
    def __init__(self):
        for program in ("ip", "nsd", "openssl"):
            if shutil.which(program) is None:
                raise CannotMake(f"{program} is not installed")
        if os.geteuid() != 0:
            raise CannotMake("namespaces need root")
        self.tag = f"koukan-{os.getpid()}-{secrets.token_hex(3)}"
        self.spaces = []
        self.folder = tempfile.mkdtemp(prefix="koukan-internet-")
        os.chmod(self.folder, 0o755)  # the servers run as nobody
        self.stack = contextlib.ExitStack()
        self.stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
        self.stack.callback(self.remove_spaces)
        self.records, self.hosts, self.sites = [], {}, {}
        try:
            self.make_wire()
            self.binary = os.path.join(self.folder, "koukan")
            shutil.copy(BINARY, self.binary)  # nobody may not see the folder that it is built in
            self.tool = RELEASE or self.binary  # for what is tested elsewhere
            self.env = self.sanitizers()
            self.world = World(self.folder, self.binary)
            self.stack.callback(self.world.close)
            self.make_ca()
        except BaseException:
            self.stack.close()
            raise

    def close(self):
        self.stack.close()

    # ---- namespaces ----

    def space(self, name):
        full = f"{self.tag}-{name}"
        done = ip("netns", "add", full, check=False)
        if done.returncode != 0:
            raise CannotMake(done.stderr.decode().strip())
        self.spaces.append(full)
        ip("-n", full, "link", "set", "lo", "up")
        return full

    def make_wire(self):
        """The bridge, and one host on it: where this works the rest will."""
        self.hub = self.space("hub")
        self.has_ipv6 = ip("-n", self.hub, "addr", "add", "2001:db8::1/128", "dev", "lo",
                           check=False).returncode == 0
        try:
            ip("-n", self.hub, "link", "add", "wire", "type", "bridge")
            ip("-n", self.hub, "link", "set", "wire", "up")
            self.host("dns", DNS)
        except RuntimeError as error:
            raise CannotMake(str(error)) from None

    def remove_spaces(self):
        for space in self.spaces:
            ip("netns", "del", space, check=False)

    def host(self, name, *addresses):
        """A host on the wire; everybody reaches everybody without a router."""
        space = self.space(name)
        ip("-n", self.hub, "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns",
           space)
        ip("-n", self.hub, "link", "set", name, "master", "wire", "up")
        kept = [address for address in addresses if self.has_ipv6 or ":" not in address]
        for address in kept:
            v6 = ["nodad"] if ":" in address else []
            ip("-n", space, "addr", "add", f"{address}/{128 if v6 else 32}", "dev", "eth0", *v6)
        ip("-n", space, "link", "set", "eth0", "up")
        for family in ("-4", "-6") if any(":" in address for address in kept) else ("-4",):
            ip("-n", space, family, "route", "add", "default", "dev", "eth0")
        self.hosts[name] = Host(name, space, kept)
        return self.hosts[name]

    # ---- names ----

    def reverse(self, address, name):
        self.records.append(f"{ipaddress.ip_address(address).reverse_pointer}. 60 IN PTR {name}.")

    def sender_domain(self, domain, address, reverse=True):
        """A domain whose host may send for it."""
        self.records += [f"{domain}. 60 IN MX 10 mail.{domain}.",
                         f"mail.{domain}. 60 IN A {address}",
                         f"{domain}. 60 IN TXT \"v=spf1 ip4:{address} -all\"",
                         f"mail.{domain}. 60 IN TXT \"v=spf1 a -all\""]
        if reverse:
            self.reverse(address, f"mail.{domain}")

    def start_dns(self):
        """All names are in the one zone above all others, so there is nothing to delegate."""
        folder = self.world.make("dns")
        zone = [". 60 IN SOA ns. hostmaster. 1 60 60 60 60", ". 60 IN NS ns.",
                f"ns. 60 IN A {DNS}", *self.records]
        for site in self.sites.values():
            with open(os.path.join(site.etc, "dns-records.txt"), encoding="ascii") as file:
                zone.append(file.read())
        self.world.write("dns/root.zone", "\n".join(zone) + "\n")
        config = self.world.write("dns/nsd.conf", f"""
server:
  ip-address: {DNS}
  zonesdir: "{folder}"
  pidfile: "{folder}/nsd.pid"
  database: ""
  xfrdfile: ""
  zonelistfile: "{folder}/zone.list"
  xfrdir: "{folder}"
  username: ""
  server-count: 1
  rrl-ratelimit: 0
remote-control:
  control-enable: no
zone:
  name: "."
  zonefile: "root.zone"
""")
        host = self.hosts["dns"]
        server = procs.Proc("nsd", host.argv("nsd", "-d", "-c", config), self.folder)
        self.world.procs.append(server)

        def answers():
            with host.inside(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                client.settimeout(0.2)
                with contextlib.suppress(OSError):
                    client.sendto(b"\0\1\0\0\0\1\0\0\0\0\0\0\0\0\6\0\1", (DNS, 53))
                    return client.recv(512)
            return None
        procs.wait_until(answers, "the name server", alive=server)
        return server

    # ---- certificates ----

    def openssl(self, *arguments):
        subprocess.run(["openssl", *arguments], check=True, cwd=self.folder,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def make_ca(self):
        self.openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
                     "-nodes", "-keyout", "ca.key", "-out", "ca.pem", "-days", "2", "-subj",
                     "/CN=An Authority")
        os.chmod(os.path.join(self.folder, "ca.pem"), 0o644)
        self.ca = os.path.join(self.folder, "ca.pem")

    def certificate(self, name, folder):
        """cert.pem and key.pem in the folder, replaced at once."""
        self.openssl("req", "-x509", "-CA", "ca.pem", "-CAkey", "ca.key", "-newkey", "ec",
                     "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-keyout",
                     f"{folder}/key.new", "-out", f"{folder}/cert.new", "-subj", f"/CN={name}",
                     "-addext", f"subjectAltName=DNS:{name}", "-addext",
                     "basicConstraints=critical,CA:FALSE")
        for part in ("key", "cert"):
            os.chown(f"{folder}/{part}.new", NOBODY, NOBODY)
            os.replace(f"{folder}/{part}.new", f"{folder}/{part}.pem")

    def sanitizers(self):
        """The suppressions, too, must be where nobody can read them."""
        env = {"SSL_CERT_FILE": os.path.join(self.folder, "ca.pem")}
        options = os.environ.get("LSAN_OPTIONS", "")
        head, found, path = options.partition("suppressions=/")
        if found:
            copy = os.path.join(self.folder, "suppressions")
            shutil.copy("/" + path, copy)
            env["LSAN_OPTIONS"] = f"{head}suppressions={copy}"
        return env


class Notified:
    """What a service tells its manager."""

    def __init__(self, path):
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(path)
        os.chmod(path, 0o777)
        self.socket.settimeout(20)

    def next(self):
        return self.socket.recv(4096).decode()

    def close(self):
        self.socket.close()


class Site:
    """A domain with gateway, router and mailboxes, from the example files.  `activated`: its ports
    are opened by a manager, and the gateway has no capability at all; else it has
    CAP_NET_BIND_SERVICE alone.  Neither process is root."""

    def __init__(self, internet, name, address, address6, partner, activated):
        self.internet, self.name, self.activated = internet, name, activated
        self.domain, self.mail_host = f"{name}.example", f"mail.{name}.example"
        self.addresses = [address, address6] if internet.has_ipv6 else [address]
        self.host = internet.host(name, *self.addresses)
        self.folder = internet.world.make(f"site-{name}")
        self.etc, self.state = os.path.join(self.folder, "etc"), os.path.join(self.folder, "state")
        os.makedirs(self.state)
        v6 = ["--ipv6", address6] if internet.has_ipv6 else []
        self.setup = procs.Proc(
            f"{name}-setup",
            [os.path.join(EXAMPLES, "setup.sh"), "--domain", self.domain, "--host", self.mail_host,
             "--ipv4", address, *v6, "--partner", partner, "--resolver", DNS, "--etc",
             self.etc, "--state", self.state], self.folder, env={"KOUKAN": internet.tool})
        if internet.has_ipv6:
            internet.reverse(address6, self.mail_host)
        internet.sites[name] = self

    def finish_setup(self):
        assert self.setup.finish(60) == 0, self.setup.out() + self.setup.err()
        with open(os.path.join(self.etc, "passwords.txt"), encoding="ascii") as file:
            self.passwords = dict(line.split(": ") for line in file.read().splitlines())
        self.internet.certificate(self.mail_host, os.path.join(self.etc, "tls"))
        for folder, _, files in os.walk(self.folder):
            for path in [folder, *(os.path.join(folder, file) for file in files)]:
                os.chown(path, NOBODY, NOBODY)

    def start(self):
        with self.host.inside():
            self.mailboxes = Hop(24)
        self.internet.world.hops.append(self.mailboxes)
        self.notified = Notified(os.path.join(self.folder, "notify"))
        self.internet.stack.callback(self.notified.close)
        self.router = self.server("router", [], [])
        if self.activated:
            self.gateway = self.server("gateway", ["--socket", "smtp=25", "--socket",
                                                   "submission=587", "--socket",
                                                   "submissions=465"], [])
        else:
            self.gateway = self.server("gateway", [], ["net_bind_service"])

    def server(self, verb, sockets, capabilities):
        """As nobody, with no other capabilities than these."""
        limit = ",".join(["-all", *(f"+{name}" for name in capabilities)])
        become = (["--user", str(NOBODY)] if not capabilities else [])
        drop = ["setpriv", "--inh-caps", limit, "--ambient-caps", limit, "--bounding-set", limit,
                "--no-new-privs"]
        if capabilities:
            drop += ["--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups"]
        else:
            drop = []
        server = procs.Server(
            f"{self.name}-{verb}", "ip",
            self.host.argv(sys.executable, os.path.join(HERE, "activate.py"), *become, *sockets,
                           "--", *drop, self.internet.binary, verb,
                           os.path.join(self.etc, f"{verb}.yaml"))[1:], self.folder,
            env=dict(self.internet.env, NOTIFY_SOCKET=self.notified.path))
        self.internet.world.procs.append(server)
        return server

    def wait_ready(self):
        for server in (self.router, self.gateway):
            server.wait_ready(60)
            assert self.notified.next() == "READY=1"

    def queue(self, *arguments):
        done = subprocess.run(
            self.host.argv(self.internet.tool, "queue", *arguments, "--url",
                           "http://127.0.0.1:8000", "--api-key-file",
                           os.path.join(self.etc, "operator.apikey")), check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=dict(os.environ,
                                                                      **self.internet.env))
        assert done.returncode == 0, done.stdout.decode()
        return done.stdout.decode()


def connect(where, port, timeout):
    inside, address, source = where
    with inside.inside():
        return socket.create_connection((address, port), timeout, (source, 0) if source else None)


class Client(smtplib.SMTP):
    """A client on `host` of this Internet; it knows the site by its name."""

    def __init__(self, host, site, port=25, source=None, address=None, ehlo="[127.0.0.1]"):
        self.where = (host, address or site.addresses[0], source)
        super().__init__(site.mail_host, port, local_hostname=ehlo, timeout=30)

    def _get_socket(self, host, port, timeout):
        return connect(self.where, port, timeout)


class TlsClient(smtplib.SMTP_SSL):
    """The same with TLS from the first byte."""

    def __init__(self, host, site, context, port=465):
        self.where = (host, site.addresses[0], None)
        super().__init__(site.mail_host, port, local_hostname="[127.0.0.1]", timeout=30,
                         context=context)

    def _get_socket(self, host, port, timeout):
        return self.context.wrap_socket(connect(self.where, port, timeout), server_hostname=host)
