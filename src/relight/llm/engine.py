"""The model in memory and the loop over its slots: one batch a step, with a token of every answer being made.

llama.cpp is used through cyllama's classes, not through cffi as ggml is: its parameter structures change with every
release and are passed by value, and cyllama's were compiled against the same header as the library beside them.
"""

from __future__ import annotations

import gc
import logging
import re
import time
from collections import deque
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
from cyllama.llama import llama_cpp

from relight.errors import ConfigError, ModelFileError, OutOfDeviceMemory, RequestError, WorkerError
from relight.executors.cores import physical_cores
from relight.llm.asks import LoadSettings, Stats
from relight.llm.choosing import Choosing
from relight.llm.header import Header
from relight.llm.slots import Slot, Turn, best_slot
from relight.llm.states import States

log = logging.getLogger("relight.llm.engine")

CACHE_TYPES = {"f16": 1, "q4_0": 2, "q8_0": 8}
FLASH = {None: -1, False: 0, True: 1}
LARGEST_DEFAULT_CONTEXT = 8192
SMALLEST_CHUNK = 64
STEP_SECONDS = {True: 0.25, False: 1.0}
"""How long a step that reads a prompt may take: while others wait for their next token, and while nobody does."""
WORTH_RESTORING = 16
MEAN_POOLING = 1
ONE_DEVICE = 0
"""llama.cpp's split mode; a negative device number keeps all of the model, and every product, off the GPUs."""
GPU_TYPES = ("GPU", "IGPU")
DEVICE_NAME = re.compile(r"vulkan(\d{1,2})")


class Engine:
    """One loaded model. Everything here happens on one thread, but for `stop_now`."""

    def __init__(
        self, header: Header, settings: LoadSettings, states: States, on_progress: Callable[[float], bool]
    ) -> None:
        """Raises ModelFileError when llama.cpp refuses the file, OutOfDeviceMemory when its memory is refused."""
        self.header, self.settings, self.states = header, settings, states
        self.model = _load_model(header, settings, on_progress)
        self.vocabulary = self.model.get_vocab()
        wanted = settings.context or min(header.trained_context or LARGEST_DEFAULT_CONTEXT, LARGEST_DEFAULT_CONTEXT)
        self.threads = settings.threads or physical_cores()
        self.context = self._make_context(wanted)
        self.context_tokens: int = min(wanted, self.context.n_ctx_seq)
        self.batch = llama_cpp.LlamaBatch(n_tokens=settings.batch, embd=0, n_seq_max=1)
        self.slots = [Slot(number) for number in range(settings.slots)]
        self.choosing = Choosing(self.vocabulary.n_vocab, min(settings.slots, physical_cores()))
        self.waiting: deque[Turn] = deque()
        self.key = self._state_key()
        self._embedding: Any = None
        self._rate = 0.0  # prompt tokens a second, lately
        self.prompt_tokens = self.decode_tokens = self.reused_tokens = 0
        self.prompt_seconds = self.decode_seconds = 0.0

    def _state_key(self) -> str:
        s = self.settings
        form = (s.cache_k, s.cache_v, s.flash_attention, self.model.n_swa, version("cyllama-vulkan"))
        return f"{self.header.identity} {form}"

    def _make_context(self, tokens: int) -> Any:
        s = self.settings
        p = self._context_params()
        # One memory for all slots: with one each, llama.cpp computes slots whose numbers are not neighbours one after
        # another, and a prompt that is read beside answers apart from them.
        p.n_ctx, p.n_seq_max, p.kv_unified = tokens * s.slots, s.slots, True
        p.n_batch = p.n_ubatch = s.batch
        p.type_k, p.type_v = CACHE_TYPES[s.cache_k], CACHE_TYPES[s.cache_v]
        p.flash_attn_type = 1 if s.cache_v != "f16" else FLASH[s.flash_attention]
        try:
            context = llama_cpp.LlamaContext(self.model, p)
        except Exception as error:
            raise OutOfDeviceMemory(
                f"{self.header.name}: no memory for {s.slots} conversations of {tokens} tokens ({error}); "
                "a smaller context (--ctx), fewer of them (language_model.slots), --cache q8_0 or fewer --n-gpu-layers"
            ) from error
        context.install_cancel_callback()
        return context

    def _context_params(self) -> Any:
        p = llama_cpp.LlamaContextParams()
        p.n_threads = p.n_threads_batch = self.threads
        p.no_perf = True
        if device_number(self.settings) < 0:
            p.offload_kqv = p.op_offload = False
        return p

    @property
    def busy(self) -> bool:
        return bool(self.waiting) or any(slot.turn for slot in self.slots)

    def submit(self, turn: Turn) -> None:
        """Its prompt has to be shorter than `context_tokens`."""
        self.waiting.append(turn)

    def stop_now(self) -> None:
        """Break off the batch being computed, from any thread; whoever was not cancelled computes it again."""
        context = self.context
        if context is not None:
            context.cancel = True

    def step(self) -> None:
        """Seat who waits, compute one batch, choose a token for every answer that has come to one."""
        self._drop_cancelled()
        self._seat()
        active = [slot for slot in self.slots if slot.turn]
        if not active:
            return
        rows = self._fill(active)
        began = time.perf_counter()
        try:
            self.context.decode(self.batch)
        except InterruptedError:
            self._after_interruption(active)
            return
        except Exception as error:
            self._fail(active, error)
            return
        for slot, taken, _ in rows:
            slot.tokens += slot.todo[:taken]
            del slot.todo[:taken]
        read = sum(taken for slot, taken, _ in rows if slot.reading)
        self._choose([(slot, index) for slot, _, index in rows if not slot.todo])
        self._count(read, len(rows), time.perf_counter() - began)

    def _fill(self, active: Sequence[Slot]) -> list[tuple[Slot, int, int]]:
        """Put what comes next of each slot into the batch: slot, how many of its tokens, row of the last."""
        self.batch.clear()
        taken = self._share(active)
        rows, at = [], 0
        for slot in self.slots:
            count = taken.get(slot.number, 0)
            if not count:
                continue
            position = len(slot.tokens)
            for i, token in enumerate(slot.todo[:count]):
                self.batch.add(token, position + i, [slot.number], i + 1 == len(slot.todo))
            at += count
            rows.append((slot, count, at - 1))
        return rows

    def _share(self, active: Sequence[Slot]) -> dict[int, int]:
        """How many tokens each slot puts into the batch: answers first, then prompts in the order they came."""
        left = self.settings.batch
        room = self._chunk(any(not slot.reading for slot in active))
        taken = {}
        for slot in sorted(active, key=lambda each: (each.reading, each.used)):
            count = min(len(slot.todo), room if slot.reading else 1, left)
            taken[slot.number] = count
            left -= count
            room -= count if slot.reading else 0
        return taken

    def _chunk(self, others_wait: bool) -> int:
        if not self._rate:
            return min(self.settings.batch, 4 * SMALLEST_CHUNK)
        return max(SMALLEST_CHUNK, min(self.settings.batch, int(self._rate * STEP_SECONDS[others_wait])))

    def _count(self, read: int, rows: int, seconds: float) -> None:
        """A step that read so many tokens of prompts; one without any made a token for each of its rows."""
        self.prompt_tokens += read
        if read:
            self.prompt_seconds += seconds
            if read >= SMALLEST_CHUNK:
                self._rate = read / seconds if not self._rate else 0.5 * (self._rate + read / seconds)
        else:
            self.decode_seconds += seconds
            self.decode_tokens += rows

    def _choose(self, ready: Sequence[tuple[Slot, int]]) -> None:
        """The next token of each slot, by the row of its logits."""
        if not ready:
            self.context.synchronize()  # a GPU may still be at it, and how long it takes sets what the next step reads
        chosen = self.choosing.choose(self.context, [(slot.turn.sampler, row) for slot, row in ready if slot.turn])
        for (slot, row), token in zip(ready, chosen, strict=True):
            self._take(slot, row, token)

    def _take(self, slot: Slot, row: int, token: int | Exception) -> None:
        turn = slot.turn
        assert turn is not None
        try:
            if isinstance(token, Exception):
                raise token
            turn.generated += 1
            turn.first = turn.first or time.perf_counter()
            ended = turn.on_token(token, lambda: self.context.get_logits_ith(row))
        except Exception as error:
            self._end(slot, error if isinstance(error, RequestError) else WorkerError(f"no next token: {error}"))
            return
        if not ended and (turn.generated >= turn.max_tokens or len(slot.tokens) >= self.context_tokens):
            ended = "length"
        if ended:
            self._end(slot, ended)
        else:
            slot.todo = [token]

    def _end(self, slot: Slot, why: str | Exception) -> None:
        turn = slot.turn
        assert turn is not None
        slot.turn, slot.todo, slot.used = None, [], time.monotonic()
        turn.sampler.close()
        turn.on_end(why, turn.usage())

    def _drop_cancelled(self) -> None:
        for slot in self.slots:
            if slot.turn and slot.turn.cancelled:
                self._end(slot, "cancelled")
        for turn in [turn for turn in self.waiting if turn.cancelled]:
            self.waiting.remove(turn)
            turn.sampler.close()
            turn.on_end("cancelled", turn.usage())

    def _after_interruption(self, active: Sequence[Slot]) -> None:
        """What the broken batch left in memory is taken out again."""
        self.context.cancel = False
        for slot in active:
            if not self.context.memory_seq_rm(slot.number, len(slot.tokens), -1):
                self._reread(slot)

    def _reread(self, slot: Slot) -> None:
        """A memory that cannot go back a little is emptied, and all of the text comes again."""
        self.context.memory_seq_rm(slot.number, -1, -1)
        slot.todo = slot.tokens + slot.todo
        slot.tokens = []

    def _fail(self, active: Sequence[Slot], error: Exception) -> None:
        """A batch llama.cpp could not compute ends the answers in it; their slots are emptied."""
        log.error("a batch of %d tokens failed: %s", self.batch.n_tokens, error)
        for slot in active:
            self.context.memory_seq_rm(slot.number, -1, -1)
            slot.tokens = []
            self._end(slot, WorkerError(f"{self.header.name}: llama.cpp could not compute the next tokens: {error}"))

    def _seat(self) -> None:
        while self.waiting:
            found = best_slot(self.slots, self.waiting[0].prompt)
            if found is None:
                return
            turn = self.waiting.popleft()
            slot, shared = found
            self._prepare(slot, turn, shared)
            slot.turn, slot.used = turn, time.monotonic()

    def _prepare(self, slot: Slot, turn: Turn, shared: int) -> None:
        """Keep of the slot's memory what the prompt begins with, or bring back a conversation that has more of it."""
        better = self.states.best(self.key, turn.prompt)
        if shared < len(slot.tokens):
            self.keep_state(slot)
        if better and better[1] >= shared + WORTH_RESTORING and self._restore(slot, better[0]):
            shared = better[1]
        # The last token of the prompt is always computed: the answer begins from its logits.
        keep = self._cut(slot, min(shared, len(turn.prompt) - 1))
        turn.reused = keep
        self.reused_tokens += keep
        slot.todo = turn.prompt[keep:]

    def _cut(self, slot: Slot, keep: int) -> int:
        """Leave the first `keep` tokens in memory, or none where the model cannot go back that far."""
        if keep < len(slot.tokens):
            window = self.model.n_swa
            gone = window and self.context.memory_seq_pos_min(slot.number) > max(0, keep - window)
            if gone or not self.context.memory_seq_rm(slot.number, keep, -1):
                keep = 0
                self.context.memory_seq_rm(slot.number, -1, -1)
        slot.tokens = slot.tokens[:keep]
        return keep

    def keep_state(self, slot: Slot) -> None:
        """Remember what a slot holds before it goes, where it is worth it and there is a budget."""
        if len(slot.tokens) < self.states.budget.min_tokens or self.states.holds(self.key, slot.tokens):
            return
        if self.context.get_state_seq_size(slot.number) <= self.states.largest:
            self.states.keep(self.key, slot.tokens, self.context.get_state_seq_data(slot.number))

    def _restore(self, slot: Slot, key: str) -> bool:
        found = self.states.take(key)
        if found is None:
            return False
        tokens, raw = found
        self.context.memory_seq_rm(slot.number, -1, -1)
        slot.tokens = []
        if len(tokens) > self.context_tokens:
            return False
        try:
            self.context.set_state_seq_data(raw, slot.number)
        except ValueError as error:
            log.warning("a kept conversation does not fit this model any more: %s", error)
            self.states.forget(key)
            self.context.memory_seq_rm(slot.number, -1, -1)
            return False
        slot.tokens = tokens.tolist()
        return True

    def save_all(self) -> None:
        """Remember every slot's conversation."""
        for slot in self.slots:
            self.keep_state(slot)

    def embed(self, tokens: Sequence[int]) -> np.ndarray:
        """A text's vector, of length 1, [D] float32. Raises RequestError for a text longer than the context."""
        if self._embedding is None:
            self._embedding = self._make_embedding_context()
        context = self._embedding
        if not 0 < len(tokens) <= context.n_batch:
            raise RequestError(f"a text to embed has {len(tokens)} tokens: 1 to {context.n_batch}")
        batch = llama_cpp.LlamaBatch(n_tokens=len(tokens), embd=0, n_seq_max=1)
        context.memory_seq_rm(0, -1, -1)
        for position, token in enumerate(tokens):
            batch.add(token, position, [0], True)
        context.decode(batch)
        vector = np.asarray(context.get_embeddings_seq(0), np.float32)
        batch.close()
        return vector / max(float(np.linalg.norm(vector)), 1e-12)

    def _make_embedding_context(self) -> Any:
        p = self._context_params()
        p.n_ctx = p.n_batch = p.n_ubatch = self.context_tokens
        p.embeddings, p.n_seq_max = True, 1
        if not self.header.pooled:
            p.pooling_type = MEAN_POOLING
        try:
            return llama_cpp.LlamaContext(self.model, p)
        except Exception as error:
            raise OutOfDeviceMemory(f"{self.header.name}: no memory for embeddings: {error}") from error

    def stats(self) -> Stats:
        return Stats(
            self.prompt_tokens,
            self.prompt_seconds,
            self.decode_tokens,
            self.decode_seconds,
            self.reused_tokens,
            sum(slot.turn is not None for slot in self.slots),
            len(self.waiting),
            len(self.states),
            self.states.ram_bytes,
            self.states.disk_bytes,
        )

    def close(self) -> None:
        """End what runs, remember the conversations, and give all memory back."""
        for turn in [*self.waiting, *(slot.turn for slot in self.slots if slot.turn)]:
            turn.cancelled = True
        self._drop_cancelled()
        self.save_all()
        self.choosing.close()
        self.batch.close()
        for context in (self._embedding, self.context):
            if context is not None:
                context.close()
        self.model.close()
        self._embedding = self.context = self.model = self.vocabulary = None
        gc.collect()


def _load_model(header: Header, settings: LoadSettings, on_progress: Callable[[float], bool]) -> Any:
    params = llama_cpp.LlamaModelParams()
    params.n_gpu_layers = settings.n_gpu_layers if settings.n_gpu_layers >= 0 else 1 << 16
    params.split_mode, params.main_gpu = ONE_DEVICE, device_number(settings)
    params.progress_callback = on_progress
    try:
        return llama_cpp.LlamaModel(str(header.path), params)
    except Exception as error:
        raise ModelFileError(
            f"{header.path}: llama.cpp cannot load it ({error}); it may be of a kind newer than this llama.cpp, "
            "cut short, or larger than the memory left"
        ) from error


def layers_on_gpu(settings: LoadSettings, layers: int) -> int:
    """Of a model with so many blocks; all of them and the output where as many as there are were asked for."""
    if device_number(settings) < 0:
        return 0
    wanted = settings.n_gpu_layers
    return layers + 1 if wanted < 0 else min(wanted, layers + 1)


def device_number(settings: LoadSettings) -> int:
    """As llama.cpp counts GPUs; negative for none. Raises ConfigError for a device that is not there.

    Without a named device and without any GPU everything is on the CPU, however many layers were asked for.
    """
    gpus = [device["name"] for device in llama_cpp.ggml_backend_dev_info() if device["type"] in GPU_TYPES]
    if settings.n_gpu_layers == 0 or not settings.device and not gpus:
        return -1
    match = DEVICE_NAME.fullmatch(settings.device or "vulkan0")
    if not match or int(match[1]) >= len(gpus):
        there = ", ".join(f"vulkan{number}" for number in range(len(gpus))) or "none"
        raise ConfigError(f"device {settings.device!r}: GPUs here: {there}; no layers there: --n-gpu-layers 0")
    return int(match[1])
