# SPDX-License-Identifier: Apache-2.0
"""A private Exim in a scratch folder, as another server to talk to.  Its Debian package conflicts
with Postfix, so it is unpacked and not installed (packages.unpack), and the user that it was built
for exists only in its own mount namespace: needs root."""
import os
import shutil

from devkit import packages, procs
from devkit.common import Failed

PACKAGE = "exim4-daemon-light"
USER = "Debian-exim"
UID = 64998  # it has no other use here, and owns nothing but the scratch folder

MAIN = """\
exim_path = {program}
primary_hostname = exim.example.net
spool_directory = {folder}/spool
log_file_path = {folder}/log/%slog
pid_file_path = {folder}/pid
daemon_smtp_ports = {port}
local_interfaces = 127.0.0.1
disable_ipv6
keep_environment =
never_users =
tls_advertise_hosts = {tls_hosts}
tls_certificate = {cert}
tls_privatekey = {key}
chunking_advertise_hosts = *
dsn_advertise_hosts = *
smtputf8_advertise_hosts = *
acl_smtp_rcpt = rcpt
acl_smtp_data = data
begin acl
rcpt:
  deny local_parts = nobody
       message = no such user
  defer local_parts = later
        message = not now
  accept
data:
  accept
begin routers
{router}
begin transports
hop:
  driver = smtp
  hosts_require_tls = {tls_hosts}
store:
  driver = appendfile
  directory = {folder}/mail
  maildir_format
  user = {uid}
  group = {uid}
"""
ROUTERS = {
    True: "hop:\n  driver = manualroute\n  route_list = * 127.0.0.1::{hop_port}\n"
          "  self = send\n  transport = hop",
    False: "store:\n  driver = accept\n  transport = store",
}


def program():
    """The unpacked binary, or None."""
    path = os.path.join(packages.unpacked(PACKAGE), "usr", "sbin", "exim4")
    return path if os.path.exists(path) else None


class Exim:
    """Keeps what it takes, or hands it on to `hop_port`.  `tls`: the paths of a certificate and its
    key; then STARTTLS is offered, and wanted of the hop."""

    def __init__(self, folder, hop_port=None, tls=None):
        self.folder = os.path.join(folder, "exim")
        self.port = procs.free_port()
        self.proc = None
        for name in ("spool", "log", "mail"):
            os.makedirs(os.path.join(self.folder, name))
            shutil.chown(os.path.join(self.folder, name), UID, UID)
        shutil.chown(self.folder, UID, UID)
        cert, key = tls or ("", "")
        router = ROUTERS[hop_port is not None].format(hop_port=hop_port)
        self.write("conf", MAIN.format(program=program(), folder=self.folder, port=self.port,
                                       tls_hosts="*" if tls else "", cert=cert, key=key,
                                       router=router, uid=UID))
        for name, line in (("passwd", f"{USER}:x:{UID}:{UID}::/nonexistent:/bin/false\n"),
                           ("group", f"{USER}:x:{UID}:\n")):
            with open("/etc/" + name, encoding="utf-8") as file:
                self.write(name, file.read() + line)

    def write(self, name, text):
        path = os.path.join(self.folder, name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(path, 0o644)

    def start(self):
        script = 'mount --bind "$1/passwd" /etc/passwd && mount --bind "$1/group" /etc/group && ' \
                 'exec "$2" -C "$1/conf" -bdf'
        self.proc = procs.Proc("exim", ["unshare", "--mount", "sh", "-c", script, "exim",
                                        self.folder, program()], self.folder, new_session=True)
        try:
            procs.wait_until(lambda: not procs.can_bind(self.port), "Exim to listen",
                             alive=self.proc)
        except Failed as error:
            raise Failed(f"{error}\n{self.log()}") from None

    def log(self):
        path = os.path.join(self.folder, "log", "mainlog")
        if not os.path.exists(path):
            return ""
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()

    def kept(self):
        """The messages taken, their lines ended by LF, behind Exim's own fields."""
        folder, found = os.path.join(self.folder, "mail", "new"), []
        for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else []:
            with open(os.path.join(folder, name), "rb") as file:
                found.append(file.read())
        return found

    def stop(self):
        if self.proc is not None:
            self.proc.stop()
            self.proc = None
