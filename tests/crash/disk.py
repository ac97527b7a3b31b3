# SPDX-License-Identifier: Apache-2.0
"""File systems that can be filled, copied at an instant, or taken away; and the shim that replaces
flushes.  Mounting needs root."""
import errno
import os
import shutil
import subprocess

from devkit.procs import Failed

HERE = os.path.dirname(os.path.abspath(__file__))


def command(*argv):
    done = subprocess.run(argv, check=False, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT)
    if done.returncode != 0:
        raise Failed(f"{' '.join(argv)}: exit code {done.returncode}: "
                     + done.stdout.decode("utf-8", "replace")[-500:])
    return done.stdout.decode("utf-8", "replace")


def build_shim(folder):
    path = os.path.join(folder, "shim.so")
    if not os.path.exists(path):
        command("gcc", "-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-o", path,
                os.path.join(HERE, "shim.c"), "-ldl")
    return path


class Mount:
    """A mounted file system; `close` unmounts it."""

    def __init__(self, path):
        self.path = path
        self.mounted = False

    def mount(self, *arguments):
        os.makedirs(self.path, exist_ok=True)
        command("mount", *arguments, self.path)
        self.mounted = True
        return self

    def close(self):
        if self.mounted:
            command("umount", self.path)
            self.mounted = False

    def free(self):
        stat = os.statvfs(self.path)
        return stat.f_bavail * stat.f_frsize

    def fill(self, leave):
        """A ballast file that leaves so many bytes; its path."""
        path = os.path.join(self.path, "ballast")
        size = max(0, self.free() - leave)
        block = b"\xff" * 65536
        with open(path, "wb", buffering=0) as file:
            try:
                while size > 0:
                    size -= file.write(block[:min(size, len(block))])
            except OSError as error:  # the server writes, too
                if error.errno != errno.ENOSPC:
                    raise
        return path


class Tmpfs(Mount):
    def __init__(self, path, megabytes):
        super().__init__(path)
        self.mount("-t", "tmpfs", "-o", f"size={megabytes}m,mode=0755", "none")


class Image(Mount):
    """An ext4 file system in a file.  Its metadata are written back late, so that what is on the
    device without a flush is little: a copy of the image lacks what only the page cache has."""

    def __init__(self, folder, name, megabytes):
        super().__init__(os.path.join(folder, name))
        self.image = os.path.join(folder, name + ".img")
        if megabytes:
            with open(self.image, "wb") as file:
                file.truncate(megabytes << 20)
            command("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0",
                    self.image)

    def attach(self):
        return self.mount("-o", "loop,commit=300,noatime", self.image)

    def copy_to(self, other):
        """What a power cut at this instant leaves (the writers must be stopped meanwhile)."""
        command("cp", "--sparse=always", self.image, other.image)

    def remove(self):
        self.close()
        os.unlink(self.image)


def can_mount(folder):
    """None, or why not."""
    if os.geteuid() != 0:
        return "mounting needs root"
    try:
        Tmpfs(os.path.join(folder, "probe"), 1).close()
    except Failed as error:
        return str(error)
    return None


def can_loop(folder):
    try:
        image = Image(folder, "probe-image", 16).attach()
        image.remove()
    except (Failed, OSError) as error:
        return str(error)
    return None


def strace_missing():
    return None if shutil.which("strace") else "strace is not installed"
