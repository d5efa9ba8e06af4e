"""A node as the settings say: ledger, models, engine, card."""

from __future__ import annotations

import os
from pathlib import Path

from relight.configuration.asked import own_language_model, own_model
from relight.configuration.engine import engine_settings
from relight.configuration.files import NAMED
from relight.configuration.load import Loaded
from relight.configuration.schema import value_at
from relight.jobs.engine import EngineSettings
from relight.ledger import Keep, Ledger, Limits
from relight.llm.asks import CacheType, LoadSettings, StateBudget
from relight.node.card import Card
from relight.node.health import Health
from relight.node.node import RelightNode
from relight.node.pins import fitting, pinned
from relight.node.registry import Registry
from relight.node.unsaid import said
from relight.planner import backends
from relight.planner.machine import allowed
from relight.store.catalogue import models
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
    registry = registry_of(loaded)
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
            usual=said(loaded.settings),
        )
    except BaseException:
        ledger.close()
        raise
    return node, ledger


def registry_of(loaded: Loaded) -> Registry:
    """What is here by name, and the models whose files the settings name: by the name of their folder or file where
    that is no model's name. Raises ConfigError."""
    of, found = loaded.settings.models, own_model(loaded)
    here = {model.name for model in models(Places.of())}
    name = None if found is None else of.model if of.model in here else Path(of.model).stem if of.model else found.name
    files_named = of.prediction or any(value_at(loaded.settings, place) for place in NAMED.values())
    own = {name: found} if found is not None and name is not None and (files_named or name not in here) else {}
    words = own_language_model(loaded)
    chat = {} if words is None else {words.stem: words}
    return Registry(own, chat, first=name, loras=of.lora_dir, embeddings=of.embedding_dir)


def gpu_of(health: Health, engine: EngineSettings) -> tuple[str | None, int]:
    """The card to share and the bytes of it to give out: what is free less a margin, within the user's bounds and the
    pretended card's. None where every component is sent to the CPU."""
    if backends.without_card(engine.backend):
        return None, 0
    named = backends.named_gpu(engine.backend) or engine.gpu
    fitting = [d for d in health.devices() if (d["name"] == named if named else d["type"] == "gpu")]
    if not fitting:
        return None, 0
    return str(fitting[0]["name"]), allowed(fitting[0], engine.profile, engine.max_vram_bytes, engine.max_vram_share)


def data_folder(loaded: Loaded) -> Path:
    """`server.directory`, else beside the models that relight keeps itself."""
    return loaded.settings.server.directory or Places.of(os.environ).directory.parent / "server"
