"""A node as the settings say: ledger, models, engine, card."""

from __future__ import annotations

import os
from pathlib import Path

from relight.configuration.engine import engine_settings
from relight.configuration.load import Loaded
from relight.errors import ConfigError
from relight.jobs.engine import EngineSettings
from relight.ledger import Keep, Ledger, Limits
from relight.llm.asks import CacheType, LoadSettings, StateBudget
from relight.node.card import Card
from relight.node.health import Health
from relight.node.node import RelightNode
from relight.node.pins import fitting, pinned
from relight.node.registry import Registry
from relight.planner import backends
from relight.planner.machine import HEADROOM_BYTES
from relight.store.catalogue import find_model
from relight.store.places import Places

DAY_S = 86400.0


def open_node(loaded: Loaded) -> tuple[RelightNode, Ledger]:
    """Raises ConfigError, LedgerLocked where another node has the folder."""
    server, language = loaded.settings.server, loaded.settings.language_model
    folder = data_folder(loaded)
    keep = Keep(age_s=server.keep_days * DAY_S, jobs=server.keep_jobs, size_bytes=server.keep_size)
    engine = engine_settings(loaded)
    health = Health(engine, None)
    device, room = gpu_of(health, engine)
    health.device = device
    card = Card(room, health.free) if device is not None else None
    registry = Registry(chat=chat_files(language.model))
    states = StateBudget(
        ram_bytes=language.state_ram, disk_bytes=language.state_disk, folder=str(folder / "conversations")
    )
    wanted = -1 if language.n_gpu_layers == "auto" else int(language.n_gpu_layers)
    cache: CacheType = language.cache_type  # type: ignore[assignment]
    talk = LoadSettings(
        n_gpu_layers=wanted if card is not None else 0,
        device=device,
        context=language.ctx,
        slots=language.slots,
        threads=engine.threads,
        cache_k=cache,
        cache_v=cache,
        states=states,
    )
    ledger = Ledger(folder / "jobs", Limits(queued=server.max_queue), keep)
    try:
        pins = fitting(pinned(server.pinned, registry), registry, engine, talk, card)
        node = RelightNode(
            ledger,
            registry,
            engine,
            talk,
            card=card,
            idle_s=server.idle_seconds,
            health=health,
            pins=pins,
            warm=server.warm,
        )
    except BaseException:
        ledger.close()
        raise
    return node, ledger


def gpu_of(health: Health, engine: EngineSettings) -> tuple[str | None, int]:
    """The card to share and the bytes of it to give out: what is free less a margin, within the user's bounds and the
    pretended card's. None where every component is sent to the CPU."""
    if backends.without_card(engine.backend):
        return None, 0
    named = backends.named_gpu(engine.backend) or engine.gpu
    fitting = [d for d in health.devices() if (d["name"] == named if named else d["type"] == "gpu")]
    if not fitting:
        return None, 0
    bounds = [max(0, int(fitting[0]["memory_free"]) - HEADROOM_BYTES)]
    bounds += [engine.max_vram_bytes] if engine.max_vram_bytes is not None else []
    bounds += [engine.profile.limit_bytes] if engine.profile is not None else []
    if engine.max_vram_share is not None:
        total = engine.profile.memory_bytes if engine.profile else int(fitting[0]["memory_total"])
        bounds.append(int(engine.max_vram_share * total))
    return str(fitting[0]["name"]), min(bounds)


def chat_files(model: str | None) -> dict[str, Path]:
    """The language model that the settings name, by its file's name."""
    if model is None:
        return {}
    found = find_model(model)
    if not isinstance(found, Path) or not found.is_file():
        raise ConfigError(f"language_model.model: {model} is no GGUF file")
    return {found.stem: found}


def data_folder(loaded: Loaded) -> Path:
    """`server.directory`, else beside the models that relight keeps itself."""
    return loaded.settings.server.directory or Places.of(os.environ).directory.parent / "server"
