"""On which kind of file system a path lies, from the kernel's table of mounts."""

from __future__ import annotations

import re
from pathlib import Path, PurePath

TABLE = Path("/proc/self/mountinfo")
# SQLite's log needs memory that all its users share and locks that hold, and none of these has both.
NETWORK = frozenset(
    {
        *("9p", "acfs", "afs", "beegfs", "ceph", "cifs", "coda", "davfs", "exfs", "gfs", "gfs2", "glusterfs"),
        *(
            "gpfs",
            "lustre",
            "mfs",
            "ncpfs",
            "nfs",
            "nfs4",
            "ocfs2",
            "orangefs",
            "panfs",
            "pvfs2",
            "smb",
            "smb2",
        ),
        *("smb3", "smbfs", "vmhgfs", "wekafs"),
    }
)
# File systems in user space that lie on this machine's own disks.
LOCAL = frozenset({"fuse.fuse-overlayfs", "fuse.ntfs-3g", "fuse.ntfs", "fuse.exfat", "fuse.lxcfs"})


def network_type(mountinfo: str, path: PurePath) -> str | None:
    """The type of the network file system that an absolute path without links lies on, None for a local one.

    `mountinfo` is in the format of proc(5).
    """
    kind = _type(mountinfo, path)
    if kind in NETWORK or (kind.startswith("fuse.") and kind not in LOCAL):
        return kind
    return None


def _type(mountinfo: str, path: PurePath) -> str:
    """The type of the deepest mount above a path; of two at one place the later one covers the other."""
    depth, kind = -1, ""
    for line in mountinfo.splitlines():
        mount, _, source = line.partition(" - ")
        fields, words = mount.split(" "), source.split(" ")
        if len(fields) < 5 or not words[0]:
            continue
        point = PurePath(_unescaped(fields[4]))
        if path.is_relative_to(point) and len(point.parts) >= depth:
            depth, kind = len(point.parts), words[0]
    return kind


def _unescaped(text: str) -> str:
    """The kernel writes blanks, tabs, newlines and backslashes as three octal digits."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)
