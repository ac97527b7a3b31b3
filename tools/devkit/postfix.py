# SPDX-License-Identifier: Apache-2.0
"""A private Postfix in a scratch folder, to measure beside: own configuration, queue and port; the
system's mail service is not touched.  Needs root, as Postfix's master does."""
import os
import shutil
import subprocess
import time

from devkit import procs
from devkit.common import Failed

MAIN = """\
compatibility_level = 3.6
myhostname = bench.example.com
mydestination =
local_recipient_maps =
alias_maps =
alias_database =
mynetworks = 127.0.0.0/8
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
relayhost = [127.0.0.1]:{sink}
relay_domains = example.com
smtpd_recipient_restrictions = permit_mynetworks, reject
queue_directory = {folder}/spool
data_directory = {folder}/data
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
mail_owner = postfix
setgid_group = postdrop
maillog_file = {folder}/log
maillog_file_prefixes = {folder}
"""
SERVICES = """\
127.0.0.1:{port} inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
local unix - n n - - local
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"""


class Postfix:
    """Started by `start`; `port` takes mail for the sink."""

    def __init__(self, folder, sink_port):
        self.folder = os.path.join(folder, "postfix")
        self.port = procs.free_port()
        os.makedirs(self.folder)
        # Its processes run as another user and must reach the queue.
        os.chmod(folder, 0o755)
        os.chmod(self.folder, 0o755)
        values = {"folder": self.folder, "sink": sink_port, "port": self.port}
        for name, text in (("main.cf", MAIN), ("master.cf", SERVICES)):
            with open(os.path.join(self.folder, name), "w", encoding="ascii") as file:
                file.write(text.format(**values))
        self.master = None

    def set(self, name, value):
        """A parameter of main.cf; before `start`."""
        with open(os.path.join(self.folder, "main.cf"), "a", encoding="ascii") as file:
            file.write(f"{name} = {value}\n")

    def start(self):
        for name in ("spool", "data"):
            os.makedirs(os.path.join(self.folder, name), exist_ok=True)
        shutil.chown(os.path.join(self.folder, "data"), "postfix")
        checked = subprocess.run(["postfix", "-c", self.folder, "check"], check=False,
                                 stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if checked.returncode != 0:
            raise Failed("postfix check: " + checked.stdout.decode())
        self.master = procs.Proc("postfix", ["/usr/lib/postfix/sbin/master", "-c", self.folder,
                                             "-d"], self.folder, new_session=True)
        procs.wait_until(lambda: not procs.can_bind(self.port), "Postfix to listen",
                         alive=self.master)

    def cpu_seconds(self):
        """All processes of this Postfix are children of its master: those that ended are in the
        master's account of reaped children, the others are alive.  One that ends between the two
        readings would be missed, so the sum is taken until it does not shrink."""
        last = -1.0
        for _ in range(20):
            now = procs.cpu_seconds(self.master.pid, with_children=True)
            if now >= last:
                return now
            last = now
            time.sleep(0.01)
        return now

    def stop(self):
        if self.master is not None:
            self.master.stop()
            self.master = None
