"""What a path lies on: file system, the disk under it, its queue, and how it is connected. Linux only."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath

from relight.doctor.facts.cards import link_speed
from relight.doctor.facts.system import System

NETWORK = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "fuse.sshfs", "fuse.rclone", "fuse.s3fs", "ceph", "glusterfs", "afs")
HOST_SHARES = ("9p", "drvfs", "virtiofs", "vboxsf", "fuse.vmhgfs-fuse", "prl_fs")


@dataclass(frozen=True)
class Mount:
    """`device` as major:minor; `options` of the mount and of its file system."""

    point: str
    device: str
    type: str
    source: str
    options: tuple[str, ...]

    @property
    def is_network(self) -> bool:
        return self.type in NETWORK

    @property
    def is_host_share(self) -> bool:
        """A folder of the machine outside: WSL2's /mnt/c, a virtual machine's shared folder."""
        return self.type in HOST_SHARES


@dataclass(frozen=True)
class Disk:
    """A block device. `kind`: nvme, ssd, hdd, usb, card, memory or virtual; `usb_speed` in Mbit/s, `link_speed` in GT/s
    with `link_width` lanes for NVMe; `encrypted` where dm-crypt lies between."""

    name: str
    kind: str
    scheduler: str | None
    schedulers: tuple[str, ...]
    read_ahead_kib: int | None
    requests: int | None
    model: str
    usb_speed: int | None = None
    link_speed: float | None = None
    link_width: int | None = None
    encrypted: bool = False


@dataclass(frozen=True)
class Place:
    """Where something is kept: `free` and `total` bytes of its file system, None where it cannot be asked."""

    path: str
    mount: Mount | None
    disk: Disk | None
    free: int | None
    total: int | None
    writable: bool


def mounts(system: System) -> tuple[Mount, ...]:
    found = []
    for line in (system.text("/proc/self/mountinfo") or "").splitlines():
        left, dash, right = line.partition(" - ")
        if dash and len(left.split()) >= 6 and len(right.split()) >= 2:
            _, _, device, _, point, options = left.split()[:6]
            kind, source, *more = right.split()
            point = re.sub(r"\\(\d{3})", lambda octal: chr(int(octal[1], 8)), point)
            found.append(Mount(point, device, kind, source, (*options.split(","), *",".join(more).split(","))))
    return tuple(found)


def mount_of(path: str, among: tuple[Mount, ...]) -> Mount | None:
    """The mount a path without symbolic links lies in; of several at one point the last."""
    fitting = [m for m in among if PurePosixPath(path).is_relative_to(m.point)]
    return max(reversed(fitting), key=lambda m: len(PurePosixPath(m.point).parts), default=None)


def place(system: System, path: str, among: tuple[Mount, ...]) -> Place:
    """Of a file or folder, or of what it will be made in."""
    existing = next((each for each in (path, *system.parents(path)) if system.exists(each)), path)
    mount = mount_of(system.resolved(existing), among)
    try:
        free, total = system.room(system.path(existing))
    except OSError:
        free = total = None  # type: ignore[assignment]
    return Place(path, mount, disk_of(system, mount), free, total, system.may(system.path(existing), 2))


def disk_of(system: System, mount: Mount | None) -> Disk | None:
    """The disk under a mount; the first of several. btrfs and others have device numbers of their own: by source."""
    if mount is None:
        return None
    if mount.type in ("tmpfs", "ramfs"):
        return Disk("memory", "memory", None, (), None, None, mount.type)
    folder = f"/sys/dev/block/{mount.device}"
    if not system.exists(folder):
        folder = f"/sys/class/block/{PurePosixPath(system.resolved(mount.source)).name}"
        if not mount.source.startswith("/dev/") or not system.exists(folder):
            return None
    path, encrypted = system.resolved(folder), False
    while True:
        encrypted = encrypted or (system.text(f"{path}/dm/uuid") or "").startswith("CRYPT-")
        below = system.names(f"{path}/slaves")
        if not below:
            break
        path = system.resolved(f"/sys/class/block/{below[0]}")
    if not system.exists(f"{path}/queue"):
        path = str(PurePosixPath(path).parent)  # a partition
    return _disk(system, path, encrypted) if system.exists(f"{path}/queue") else None


def _disk(system: System, path: str, encrypted: bool) -> Disk:
    queue, name = f"{path}/queue", PurePosixPath(path).name
    schedulers = (system.text(f"{queue}/scheduler") or "").split()
    active = next((each.strip("[]") for each in schedulers if each.startswith("[")), None)
    is_nvme = name.startswith("nvme")
    controller = f"{path}/device/device" if is_nvme else None
    return Disk(
        name=name,
        kind=_kind(system, path, name),
        scheduler=active or (schedulers[0] if len(schedulers) == 1 else None),
        schedulers=tuple(each.strip("[]") for each in schedulers),
        read_ahead_kib=system.number(f"{queue}/read_ahead_kb"),
        requests=system.number(f"{queue}/nr_requests"),
        model=system.text(f"{path}/device/model") or "",
        usb_speed=_usb_speed(system, path),
        link_speed=link_speed(system.text(f"{controller}/current_link_speed")) if controller else None,
        link_width=system.number(f"{controller}/current_link_width") if controller else None,
        encrypted=encrypted,
    )


def _kind(system: System, path: str, name: str) -> str:
    if re.search(r"/usb\d", path):
        return "usb"
    for pattern, kind in ((r"nvme", "nvme"), (r"mmcblk", "card"), (r"zram|ram", "memory"), (r"vd|xvd|loop", "virtual")):
        if re.match(pattern, name):
            return kind
    if re.search(r"virtual disk|vbox|qemu|vmware", system.text(f"{path}/device/model") or "", re.IGNORECASE):
        return "virtual"
    return "hdd" if system.number(f"{path}/queue/rotational") == 1 else "ssd"


def _usb_speed(system: System, path: str) -> int | None:
    """Of the device, which is the nearest folder above the disk that says one."""
    if not re.search(r"/usb\d", path):
        return None
    speeds = (system.number(f"{folder}/speed") for folder in PurePosixPath(path).parents)
    return next((speed for speed in speeds if speed), None)
