"""A worker that does as it is told: fails, dies, floods its log, hangs. Started as `python fake_worker.py [HOW]`."""

from __future__ import annotations

import os
import sys
import threading
import time

from relight.errors import DeviceLost, DoesNotFit
from relight.workers import child
from relight.workers.child import Answer, Child
from relight.workers.protocol import Message


class Fake(Child):
    def on_echo(self, call: Message) -> Answer:
        return {"pid": os.getpid(), "variable": os.environ.get(call.values.get("variable", ""))}, call.arrays

    def on_refuse(self, call: Message) -> Answer:
        raise DoesNotFit("5.00 GiB are needed and 4.00 GiB are allowed")

    def on_blunder(self, call: Message) -> Answer:
        raise ZeroDivisionError("by accident")

    def on_end(self, call: Message) -> Answer:
        """Say something, then end by a signal or with an exit status."""
        for line in call.values.get("says", ()):
            print(line, file=sys.stderr)  # noqa: T201
        if "signal" in call.values:
            os.kill(os.getpid(), call.values["signal"])
        os._exit(call.values["status"])

    def on_flood(self, call: Message) -> Answer:
        os.write(2, b"x" * (4 << 20) + b"\n" + b"line\n" * 200_000)
        return {}, {}

    def on_print(self, call: Message) -> Answer:
        os.write(1, b"as a C library prints\n")
        print("as a Python library prints")  # noqa: T201
        return {}, {}

    def on_steps(self, call: Message) -> Answer:
        """Report steps until cancelled, a thousandth of a second each."""
        report = self.progress("denoise")
        for done in range(call.values["total"]):
            time.sleep(call.values.get("seconds", 0.001))
            report(done + 1, call.values["total"])
        return {"done": call.values["total"]}, {}

    def on_run(self, call: Message) -> Answer:
        if call.values.get("hang"):
            threading.Event().wait()
        return {}, {}

    def on_lose(self, call: Message) -> Answer:
        raise DeviceLost("vulkan0: computing failed (failed)")

    def on_hang(self, call: Message) -> Answer:
        """After some steps, where it is to make any."""
        for done in range(call.values.get("steps", 0)):
            self.progress("denoise")(done + 1, 9)
        threading.Event().wait()
        return {}, {}


def main() -> None:
    how = sys.argv[1:]
    if how == ["hang"]:
        threading.Event().wait()
    if how == ["chatter"]:
        os.write(1, b"this is no message, and long enough to be read as one\n")
    if how == ["raise"]:
        raise ImportError("libwanted.so.1: cannot open shared object file")
    child.Child = Fake  # type: ignore[misc]
    child.main()


if __name__ == "__main__":
    main()
