"""The disk the models lie on: what it is, how it is read, how fast, and how much room is left."""

from __future__ import annotations

from collections.abc import Iterator

from relight.doctor.facts.disks import Disk, Place
from relight.doctor.finding import GIB, Finding, Remedy, duration, fail, ok, size, warn
from relight.doctor.machine import Machine

KINDS = {
    "nvme": "NVMe",
    "ssd": "SATA SSD",
    "hdd": "hard disk",
    "usb": "USB",
    "card": "memory card",
    "memory": "memory",
    "virtual": "virtual disk",
}
USB_3 = 5000
PATIENCE_S, TOO_LONG_S = 60.0, 600.0
FASTER_THAN_DISKS = 15e9
READ_AHEAD_KIB = 1024
ROOM_FOR_A_SET, ROOM_TO_WORK = 13 * GIB, GIB
MOVE = Remedy(
    "keep the models on a disk inside the machine, best NVMe",
    "mv FOLDER /path/on/that/disk && export RELIGHT_MODELS=/path/on/that/disk",
    "mv them back && unset RELIGHT_MODELS",
)


def kind(machine: Machine) -> Iterator[Finding]:
    place, disk = machine.model_place, machine.model_place.disk
    if disk is None:
        if not machine.is_windows and not (place.mount and (place.mount.is_network or place.mount.is_host_share)):
            yield ok("disk", f"{place.path} lies on a disk that is not shown here")
        return
    seen = f"{place.path}: {_described(disk)}"
    numbers = {"kind": disk.kind, "disk": disk.name}
    if disk.kind == "usb" and (disk.usb_speed or USB_3) < USB_3:
        yield fail(
            "disk",
            f"{seen} at {disk.usb_speed} Mbit/s",
            "USB 2 reads 35 MB/s: over three minutes for FLUX' "
            "backbone alone, and whenever it was pushed out of memory",
            MOVE,
            **numbers,
        )
    elif disk.kind == "hdd":
        yield warn(
            "disk",
            seen,
            "120 to 200 MB/s at best, and a small part of it when two files are read at once: loading takes minutes",
            MOVE,
            **numbers,
        )
    elif disk.kind in ("usb", "card"):
        yield warn("disk", seen, "it is slow, and a plug pulled while a model is used ends the worker", MOVE, **numbers)
    else:
        yield ok("disk", seen, **numbers)


def _described(disk: Disk) -> str:
    link = f", PCIe x{disk.link_width} {disk.link_speed:g} GT/s" if disk.link_speed and disk.link_width else ""
    return f"{KINDS[disk.kind]} {disk.name} {disk.model}".rstrip() + link + (", encrypted" if disk.encrypted else "")


def file_system(machine: Machine) -> Iterator[Finding]:
    """Network, the host's files through WSL2, and file systems whose reads are not what they seem."""
    place, mount = machine.model_place, machine.model_place.mount
    if mount is None:
        return
    seen = f"{place.path} is on {mount.type} ({mount.source} at {mount.point})"
    compressed = [option for option in mount.options if option.startswith("compress") and not option.endswith("=no")]
    if mount.is_host_share and machine.is_wsl:
        yield fail(
            "file-system",
            seen,
            "each read of Windows' disk from WSL2 is a message to Windows: 10 to 20 times slower than WSL2's own disk, "
            "and files cannot be mapped well",
            Remedy("copy the models into WSL2", "mv FOLDER ~/.local/share/relight/models", "mv it back to /mnt/c"),
        )
    elif mount.is_network or mount.is_host_share:
        yield warn(
            "file-system",
            seen,
            "a gigabit network reads 110 MB/s, and a worker with a file mapped ends when the other side goes away",
            MOVE,
        )
    elif mount.type in ("fuseblk", "ntfs", "ntfs3", "vfat", "exfat"):
        yield warn(
            "file-system",
            seen,
            "it is made for Windows: through FUSE reading costs processor time that the "
            "text encoder needs, and vfat holds no file over 4 GiB",
            MOVE,
        )
    elif compressed:
        yield ok("file-system", f"{seen}, {compressed[0]}: weights do not compress, and reading them costs little")
    else:
        yield ok("file-system", seen)


def queue(machine: Machine) -> Iterator[Finding]:
    """Scheduler and read-ahead, each as fits the kind of disk."""
    disk = machine.model_place.disk
    if disk is None or disk.scheduler is None or disk.kind in ("memory", "virtual"):
        return
    file = f"/sys/block/{disk.name}/queue"
    seen = f"{disk.name}: scheduler {disk.scheduler}, read-ahead {disk.read_ahead_kib} KiB, {disk.requests} requests"
    numbers = {"scheduler": disk.scheduler, "read_ahead_kib": disk.read_ahead_kib}
    if disk.kind == "nvme" and disk.scheduler != "none":
        yield warn(
            "queue",
            seen,
            "an NVMe disk orders requests itself, with the kernel's default `none`; a scheduler before it only costs "
            "processor time (recipes that advise mq-deadline here are wrong)",
            _scheduler(file, "none", disk.scheduler),
            **numbers,
        )
    elif disk.kind == "hdd" and disk.scheduler == "none":
        wanted = "mq-deadline" if "mq-deadline" in disk.schedulers else "bfq"
        yield warn(
            "queue",
            seen,
            "a hard disk loses most of its speed when requests are not ordered",
            _scheduler(file, wanted, "none"),
            **numbers,
        )
    elif disk.kind in ("hdd", "usb", "card") and (disk.read_ahead_kib or 0) < READ_AHEAD_KIB:
        yield warn(
            "queue",
            seen,
            "models are read from front to back; with 1 to 4 MiB read ahead a slow disk comes nearer to its own speed",
            Remedy(
                "read further ahead, until the next start",
                f"echo 4096 | sudo tee {file}/read_ahead_kb",
                f"echo {disk.read_ahead_kib} | sudo tee {file}/read_ahead_kb",
            ),
            **numbers,
        )
    else:
        yield ok("queue", seen, **numbers)


def _scheduler(file: str, wanted: str, now: str) -> Remedy:
    return Remedy(
        f"take {wanted}, until the next start",
        f"echo {wanted} | sudo tee {file}/scheduler",
        f"echo {now} | sudo tee {file}/scheduler",
    )


def cold_read(machine: Machine) -> Iterator[Finding]:
    """The measured rate of a model file, and the time the whole model takes at it."""
    for model, read in zip(machine.models, machine.cold_reads, strict=False):
        if isinstance(read, str):
            yield fail(
                "cold-read",
                read,
                "relight cannot read the model either",
                Remedy("see who may", f"ls -l {model.largest.path}", "nothing to undo"),
            )
            continue
        load_s = model.bytes / max(read.rate, 1.0)
        amount = f"{size(read.bytes)} of {model.largest.path.name} in {read.seconds:.2f} s, {read.rate / 1e6:.0f} MB/s"
        numbers = {"bytes_per_s": read.rate, "load_s": load_s, "cached": read.cached}
        if read.cached or read.rate > FASTER_THAN_DISKS:
            yield ok(
                "cold-read",
                f"{amount}: from memory, as it is in use; the disk was not measured",
                **numbers | {"cached": True},
            )
            continue
        seen = f"{amount}: {model.name} ({size(model.bytes)}) loads in {duration(load_s)}"
        if load_s > TOO_LONG_S:
            yield fail(
                "cold-read",
                seen,
                "this is slower than any sound disk: a network, USB 2, memory pushed into "
                "swap meanwhile, or a disk that fails",
                MOVE,
                Remedy("look at the disk's own report", "sudo smartctl -a DISK", "nothing to undo"),
                **numbers,
            )
        elif load_s > PATIENCE_S:
            yield warn(
                "cold-read",
                seen,
                "that is waited for after every start, and whenever memory was short",
                MOVE,
                **numbers,
            )
        else:
            yield ok("cold-read", seen, **numbers)


def room(machine: Machine) -> Iterator[Finding]:
    """For models and for results, which lie beside them unless they were put elsewhere."""
    places = [("models", machine.model_place), ("results", machine.result_place)]
    if (
        machine.model_place.mount == machine.result_place.mount
        and machine.model_place.free == machine.result_place.free
    ):
        places = [("models and results", machine.model_place)]
    for what, place in places:
        yield from _room(machine, what, place)


def _room(machine: Machine, what: str, place: Place) -> Iterator[Finding]:
    if place.free is None or place.total is None:
        return
    seen = f"{size(place.free)} of {size(place.total)} free for {what} ({place.path})"
    more = Remedy("see what takes the room", "relight models; relight models rm NAME", "relight pull NAME")
    numbers = {"free_bytes": place.free, "total_bytes": place.total}
    if place.free < ROOM_TO_WORK:
        yield fail("room", seen, "pictures, jobs and caches cannot be written", more, MOVE, **numbers)
    elif "models" in what and not machine.models and place.free < ROOM_FOR_A_SET:
        yield warn("room", seen, "FLUX with T5 takes 12.4 GB", more, MOVE, **numbers)
    elif place.free < 3 * ROOM_TO_WORK:
        yield warn("room", seen, "a day of pictures with their previews fills that", more, MOVE, **numbers)
    else:
        yield ok("room", seen, **numbers)
