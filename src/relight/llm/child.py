"""The language model's process: answers calls until its parent goes. Run as `python -m relight.llm.child`."""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO

import numpy as np
from cyllama.llama import llama_cpp

from relight.errors import JobCancelled, RequestError
from relight.llm import wire
from relight.llm.answers import Answerer, embedding_tokens
from relight.llm.asks import EmbedAsk, Loaded, LoadSettings, Piece, Stats
from relight.llm.engine import Engine, layers_on_gpu
from relight.llm.header import read_header
from relight.llm.slots import Turn
from relight.llm.states import States
from relight.workers.parent import failure, listen, pipes
from relight.workers.protocol import Message, packed, write

log = logging.getLogger("relight.llm.child")

MAX_TEXTS = 2048
LOAD_REPORTS = 100
SIGN_S = 1.0
"""How often at most the parent hears that steps are made, where no token comes of them."""
QUIET = 3
"""llama.cpp's level of a warning: what is below goes to the debug log."""


class Child:
    """The main thread computes; one reads the pipe, so that a cancel is seen at once; one makes prompts of asks; one
    writes, while the next tokens are computed."""

    def __init__(self, incoming: BinaryIO, outgoing: BinaryIO) -> None:
        self.incoming, self.outgoing = incoming, outgoing
        self.calls: queue.Queue[Message] = queue.Queue()
        self.asks: queue.Queue[Message] = queue.Queue()
        self.outbox: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self.turns: dict[int, Turn] = {}
        self.open: set[int] = set()  # calls that are not answered yet
        self.cancelled: set[int] = set()
        self.engine: Engine | None = None
        self.answerer: Answerer | None = None
        self.states: States | None = None
        self._signed = 0.0
        self._using_model = threading.Lock()  # held while a prompt is made, and while the model goes

    def serve(self) -> None:
        listen(self.incoming, self._take, self._cancel)
        threading.Thread(target=self._prepare_asks, daemon=True).start()
        threading.Thread(target=self._write, daemon=True).start()
        self.send(Message("ready"))
        while True:
            busy = self.engine is not None and self.engine.busy
            try:
                call = self.calls.get(block=not busy)
            except queue.Empty:
                assert self.engine is not None
                self.engine.step()
                self._sign()
                continue
            self._answer(call, getattr(self, "on_" + call.values["method"]))

    def send(self, message: Message) -> None:
        self.outbox.put(message)

    def _sign(self) -> None:
        if (now := time.monotonic()) - self._signed >= SIGN_S:
            self._signed = now
            self.send(Message("sign"))

    def _write(self) -> None:
        try:
            while True:
                write(self.outgoing, packed(self.outbox.get()))
        except Exception as error:
            log.warning("no more answers can be sent: %s: %s", type(error).__name__, error)
        finally:
            os._exit(1)

    def _answer(self, call: Message, method: Callable[[Message], Message | None]) -> None:
        try:
            answer = method(call)
        except Exception as error:
            self.fail(call.call, error)
            return
        if answer is not None:
            self._forget(call.call)
            self.send(answer)

    def fail(self, call: int, error: Exception) -> None:
        log.debug("call %d failed: %s", call, type(error).__name__)  # its words go to the parent alone
        self._forget(call)
        self.send(failure(call, error))

    def _take(self, call: Message) -> None:
        self.open.add(call.call)
        asks = call.values["method"] in ("chat", "complete")
        (self.asks if asks else self.calls).put(call)

    def _cancel(self, call: int) -> None:
        if call not in self.open:
            return
        self.cancelled.add(call)
        turn, engine = self.turns.get(call), self.engine
        if turn and engine:
            turn.cancelled = True
            engine.stop_now()

    def _prepare_asks(self) -> None:
        """Templates and tokens are made here, so that no stream waits while somebody's long prompt is."""
        while True:
            call = self.asks.get()
            with self._using_model:
                self._answer(call, self._prepare)

    def _prepare(self, call: Message) -> None:
        answerer = self._loaded()[1]
        number = call.call

        def give(piece: Piece) -> None:
            kind = "result" if piece.finish_reason else "event"
            if kind == "result":
                self._forget(number)
            self.send(Message(kind, number, wire.piece_as_json(piece)))

        def fail(error: Exception) -> None:
            self.fail(number, error)

        if call.values["method"] == "chat":
            turn = answerer.chat(wire.chat_ask(call.values["ask"]), give, fail)
        else:
            turn = answerer.complete(wire.completion_ask(call.values["ask"]), give, fail)
        self.turns[number] = turn
        turn.cancelled = number in self.cancelled
        self.calls.put(Message("call", number, {"method": "submit", "answerer": id(answerer)}))

    def on_submit(self, call: Message) -> None:
        turn = self.turns[call.call]
        if self.engine is None or id(self.answerer) != call.values["answerer"]:
            raise RequestError("the model was unloaded before this request began")
        self.engine.submit(turn)

    def _forget(self, call: int) -> None:
        self.open.discard(call)
        self.turns.pop(call, None)
        self.cancelled.discard(call)

    def _loaded(self) -> tuple[Engine, Answerer]:
        if self.engine is None or self.answerer is None:
            raise RequestError("no language model is loaded")
        return self.engine, self.answerer

    def on_load(self, call: Message) -> Message:
        """Load `path` with `settings`; what was loaded before goes first."""
        began = time.perf_counter()
        settings = wire.load_settings(call.values["settings"])
        header = read_header(Path(call.values["path"]))
        self._unload()
        if self.states is None or self.states.budget != settings.states:
            self.states = States(settings.states)
        engine = Engine(header, settings, self.states, self._progress(call.call))
        try:
            answerer = Answerer(header, engine.vocabulary, engine.context_tokens)
        except BaseException:
            engine.close()
            raise
        self.engine, self.answerer = engine, answerer
        loaded = describe(engine, answerer, settings, time.perf_counter() - began)
        return Message("result", call.call, asdict(loaded))

    def _progress(self, call: int) -> Callable[[float], bool]:
        told = -1

        def report(share: float) -> bool:
            nonlocal told
            if (done := int(share * LOAD_REPORTS)) > told:
                told = done
                self.send(Message("event", call, {"done": done, "total": LOAD_REPORTS}))
            return call not in self.cancelled

        return report

    def on_unload(self, call: Message) -> Message:
        self._unload()
        return Message("result", call.call)

    def _unload(self) -> None:
        with self._using_model:
            engine, self.engine, self.answerer = self.engine, None, None
            if engine is not None:
                engine.close()

    def on_save(self, call: Message) -> Message:
        """Remember every conversation that is in the model's memory; with `to_disk` in files too."""
        if self.engine is not None:
            self.engine.save_all()
        written = self.states.flush() if self.states and call.values["to_disk"] else 0
        return Message("result", call.call, {"kept": len(self.states) if self.states else 0, "written": written})

    def on_embed(self, call: Message) -> Message | None:
        """One text at a time, so that streams go on in between."""
        engine, answerer = self._loaded()
        if "rows" not in call.values:
            ask = wire.embed_ask(call.values["ask"])
            check_embedding(ask, engine)
            call.values.update(rows=embedding_tokens(answerer, ask.texts), dimensions=ask.dimensions)
            call.arrays["vectors"] = np.zeros((0, ask.dimensions or engine.model.n_embd_out), np.float32)
        if call.call in self.cancelled:
            raise JobCancelled("no more of these embeddings are wanted")
        rows, done = call.values["rows"], len(call.arrays["vectors"])
        vector = shortened(engine.embed(rows[done]), call.values["dimensions"])
        call.arrays["vectors"] = np.concatenate([call.arrays["vectors"], vector[None]])
        if done + 1 < len(rows):
            if engine.busy:
                engine.step()
            self._sign()
            self.calls.put(call)
            return None
        return Message("result", call.call, {"tokens": sum(map(len, rows))}, call.arrays)

    def on_stats(self, call: Message) -> Message:
        stats = self.engine.stats() if self.engine else Stats(*[0] * 10)
        return Message("result", call.call, asdict(stats))

    def on_count(self, call: Message) -> Message:
        """The tokens of a text, as the model counts them."""
        return Message("result", call.call, {"tokens": self._loaded()[1].tokens(call.values["text"])})


def describe(engine: Engine, answerer: Answerer, settings: LoadSettings, seconds: float) -> Loaded:
    model = engine.model
    return Loaded(
        name=engine.header.name,
        architecture=engine.header.architecture,
        description=str(model.desc),
        model_bytes=int(model.size),
        parameters=int(model.n_params),
        layers=int(model.n_layer),
        gpu_layers=layers_on_gpu(settings, int(model.n_layer)),
        context=engine.context_tokens,
        trained_context=int(model.n_ctx_train),
        slots=settings.slots,
        vocabulary=int(engine.vocabulary.n_vocab),
        width=int(model.n_embd_out),
        can=answerer.can,
        seconds=seconds,
    )


def check_embedding(ask: EmbedAsk, engine: Engine) -> None:
    if not 1 <= len(ask.texts) <= MAX_TEXTS:
        raise RequestError(f"input: {len(ask.texts)} texts; 1 to {MAX_TEXTS}")
    width = int(engine.model.n_embd_out)
    if ask.dimensions is not None and not 1 <= ask.dimensions <= width:
        raise RequestError(f"dimensions {ask.dimensions}: 1 to {width}")


def shortened(vector: np.ndarray, dimensions: int | None) -> np.ndarray:
    """The first of its numbers, of length 1 again."""
    if dimensions is None or dimensions == len(vector):
        return vector
    cut = vector[:dimensions]
    return cut / max(float(np.linalg.norm(cut)), 1e-12)


def on_log(level: int, text: str) -> None:
    line = text.rstrip()
    if line:
        log.log(logging.WARNING if level > QUIET else logging.DEBUG, "%s", line)


def main() -> None:
    child = Child(*pipes())
    llama_cpp.set_log_callback(on_log)
    llama_cpp.ggml_backend_load_all()
    child.serve()


if __name__ == "__main__":
    main()
