"""What a prompt says: emphasis, chunks of 75 tokens, embeddings and LoRA by name, and texts that change on the way.

The syntax is that of AUTOMATIC1111's web UI.
"""

from relight.prompts.chunks import Chunk, Slot, chunks, mentioned
from relight.prompts.conditioning import equal_lengths, weighted
from relight.prompts.emphasis import Piece, parse
from relight.prompts.loras import LoraTag, take_loras
from relight.prompts.schedule import at_step, schedule
from relight.prompts.sequence import sequence

__all__ = [
    "Chunk",
    "LoraTag",
    "Piece",
    "Slot",
    "at_step",
    "chunks",
    "equal_lengths",
    "mentioned",
    "parse",
    "schedule",
    "sequence",
    "take_loras",
    "weighted",
]
