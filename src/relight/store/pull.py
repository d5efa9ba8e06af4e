"""From a recipe to files on disk: ask the hub, look what is here, check the room, fetch, write it down."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path

from filelock import FileLock, Timeout

from relight.errors import StoreError
from relight.store import hub
from relight.store.display import Display, amount
from relight.store.download import Transfer, digest, download, fetched_before, is_right, patiently
from relight.store.hub import Described
from relight.store.manifest import CACHE, OWN, KeptFile, Manifest, find_manifest, in_hub_cache, manifests, own_place
from relight.store.places import Places
from relight.store.recipes import Recipe, RemoteFile, set_names

AT_ONCE = 4
SPARE_BYTES = 256 << 20
"""Left free on the disk, for whoever else writes to it."""
LOOK_EVERY_S = 0.1


@dataclass
class Pull:
    """One pull of one recipe. `pause` replaces waiting between tries; `display` makes the progress display."""

    recipe: Recipe
    places: Places
    say: Callable[[str], None]
    pause: Callable[[float], bool] | None = None
    display: Callable[[str, int, int], Display] = Display
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> Manifest:
        """Fetch what is missing and write the manifest. Raises StoreError; Ctrl-C leaves what came so far."""
        with one_at_a_time(self.places):
            known = {(file.repository, file.path): file for each in manifests(self.places) for file in each.files}
            kept = {file: self._here(file, known.get((file.repository, file.path))) for file in self.recipe.files}
            lacking = [file for file, found in kept.items() if found is None]
            kept |= self._fetched(lacking) if lacking else {}
            manifest = Manifest(
                self._name(),
                self.recipe.title,
                self.recipe.licences,
                tuple(found for found in kept.values() if found is not None),
            )
            manifest.write(self.places)
            return manifest

    def _name(self) -> str:
        """The set's name; of a single file its own, with the repository's before it where that is taken."""
        name, first = self.recipe.name, self.recipe.files[0]
        taken = find_manifest(self.places, name)
        free = taken is None or (taken.files[0].repository, taken.files[0].path) == (first.repository, first.path)
        if self.recipe.is_set or (free and name not in set_names()):
            return name
        return f"{first.repository.rpartition('/')[2].lower()}-{name}"

    def _here(self, wanted: RemoteFile, known: KeptFile | None) -> KeptFile | None:
        """A file pulled before that is still there and is the one the recipe pins."""
        if known is None or not (wanted.sha256 == known.sha256 if wanted.sha256 else wanted.revision == known.revision):
            return None
        place = known.place(self.places)
        whole = place.is_file() and place.stat().st_size == known.size
        return replace(known, role=wanted.role) if whole else None

    def _fetched(self, lacking: Sequence[RemoteFile]) -> dict[RemoteFile, KeptFile]:
        refuse_offline(os.environ, self.recipe)
        transfer = Transfer(self.stop, say=self.say, pause=self.pause)
        described = self._at_once(lambda file: self._described(file, transfer), lacking)
        lying = {d.remote: found for d in described if (found := self._lying(d))}
        coming = [d for d in described if d.remote not in lying]
        before = sum(fetched_before(self._place(d.remote), d) for d in coming)
        total = sum(d.size for d in coming)
        check_room(self.places.directory, total - before)
        if before:
            self.say(f"{self.recipe.name}: going on, {amount(before)} of {amount(total)} came before")
        with self.display(self.recipe.name, total, before) as display:
            transfer.advance, transfer.say = display.advance, display.say
            kept = self._at_once(lambda d: self._keep(d, lying.get(d.remote), transfer), described)
        return dict(zip((d.remote for d in described), kept, strict=True))

    def _lying(self, described: Described) -> tuple[Path, str] | None:
        """A file of the right size that is here already, in relight's store or in the hub's cache."""
        r = described.remote
        own = own_place(self.places, r.repository, r.path)
        found = [(own, OWN), (in_hub_cache(r.repository, r.path, described.commit), CACHE)]
        sized = ((path, by) for path, by in found if path and path.is_file() and path.stat().st_size == described.size)
        return next(sized, None)

    def _described(self, file: RemoteFile, transfer: Transfer) -> Described:
        found = patiently(file.name, transfer, lambda: hub.describe(file))
        if file.sha256 and len(found.etag) == 64 and found.etag != file.sha256:
            raise StoreError(
                f"{file.repository}/{file.path}: the hub has a file with the sha256 {found.etag}, and relight knows "
                f"{file.sha256}; nothing was fetched. If HF_ENDPOINT names a mirror, try without it"
            )
        return found

    def _place(self, file: RemoteFile) -> Path:
        return own_place(self.places, file.repository, file.path)

    def _keep(self, described: Described, lying: tuple[Path, str] | None, transfer: Transfer) -> KeptFile:
        """Fetch one file, or take the one lying here when its bytes are right."""
        remote = described.remote
        if lying is not None:
            path, kept_by = lying
            hashed = digest(path, sha256(), transfer.check)
            if is_right(described, path, hashed, transfer.check):
                transfer.say(f"{remote.name}: {amount(described.size)}, here already")
                return self._kept(described, hashed, kept_by)
            if kept_by == CACHE:
                raise StoreError(f"{path}: has the hash {hashed}, which is wrong; remove it and pull again")
        hashed = download(described, self._place(remote), remote.sha256, transfer)
        transfer.say(f"{remote.name}: {amount(described.size)}, hash right")
        return self._kept(described, hashed, OWN)

    def _kept(self, described: Described, hashed: str, kept_by: str) -> KeptFile:
        r = described.remote
        return KeptFile(r.role, r.repository, r.path, described.commit, described.size, hashed, kept_by)

    def _at_once[A, T](self, task: Callable[[A], T], arguments: Sequence[A]) -> list[T]:
        """Run a few at a time. The first error, or Ctrl-C, stops the others, and nobody waits for a silent server."""
        pool = ThreadPoolExecutor(AT_ONCE, "pull")
        try:
            futures = [pool.submit(task, each) for each in arguments]
            pending: set[Future[T]] = set(futures)
            while pending:
                done, pending = wait(pending, LOOK_EVERY_S, FIRST_EXCEPTION)
                for future in done:
                    future.result()
            return [future.result() for future in futures]
        except BaseException:
            self.stop.set()
            raise
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def check_room(directory: Path, wanted: int) -> None:
    """Raises StoreError with both numbers when the disk has less than `wanted` bytes and some to spare."""
    there = next(folder for folder in (directory, *directory.parents) if folder.exists())
    free = shutil.disk_usage(there).free
    if wanted + SPARE_BYTES > free:
        raise StoreError(
            f"{directory}: {amount(wanted)} are needed, {amount(SPARE_BYTES)} to spare, and {amount(free)} are free; "
            f"free {amount(wanted + SPARE_BYTES - free)}, or name a folder on another disk with RELIGHT_MODELS"
        )


def refuse_offline(environ: Mapping[str, str], recipe: Recipe) -> None:
    if environ.get("RELIGHT_OFFLINE", "0") not in ("", "0"):
        raise StoreError(f"{recipe.name}: RELIGHT_OFFLINE keeps relight from the network; unset it to pull")


@contextmanager
def one_at_a_time(places: Places) -> Iterator[None]:
    """Two pulls into one directory would write to one file."""
    try:
        places.directory.mkdir(parents=True, exist_ok=True)
        lock = FileLock(places.directory / ".pull.lock")
        lock.acquire(blocking=False)
    except Timeout as error:
        raise StoreError(f"{places.directory}: another pull is running there; wait for it") from error
    except OSError as error:
        raise StoreError(f"{places.directory}: cannot be written to ({error.strerror}); set RELIGHT_MODELS") from error
    try:
        yield
    finally:
        lock.release()
