"""R11's clients, in a process of their own and of low priority: chats, submissions, questions, listeners, all at once.

Reads what to do as JSON from its argument (see `Asked`) and prints what happened as one line of JSON (`Told`).
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any

from faults.load_crowd import SEEDS, Clock, tell
from faults.load_http import Answer, Connection

ALLOWED = (429, 503)
"""What is documented for a server that has enough to do."""
SHOWN = 10
QUESTIONS = ("/healthz", "/readyz", "/api/jobs?limit=20", "JOB", "/v1/models", "/metrics")


@dataclass(frozen=True)
class Asked:
    port: int
    seconds: float
    chats: int
    submitters: int
    pollers: int
    listeners: int
    image_model: str
    chat_model: str
    seed: int


@dataclass
class Told:
    """Seconds to the heads of answers, by kind of request; statuses; what was wrong; pieces of answers, and jobs."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    statuses: dict[str, Counter[int]] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    errors: int = 0
    pieces: int = 0
    jobs: list[str] = field(default_factory=list)


class Crowd(Clock):
    def __init__(self, asked: Asked) -> None:
        super().__init__(asked.seconds, asked.seed)
        self.asked, self.told = asked, Told()
        self.newest: deque[str] = deque(maxlen=64)

    async def run(self) -> Told:
        asked = self.asked
        clients = [*[self.chat] * asked.chats, *[self.submit] * asked.submitters]
        clients += [*[self.poll] * asked.pollers, *[self.listen] * asked.listeners]
        async with asyncio.TaskGroup() as group:
            for client in clients:
                group.create_task(self.going_on(client))
        return self.told

    async def going_on(self, client: Any) -> None:
        """Come one after another within the first second, and again and again until the end."""
        await asyncio.sleep(self.lot.random())
        async with Connection(self.asked.port) as connection:
            while self.left:
                try:
                    await client(connection)
                except (OSError, EOFError, ValueError) as error:
                    self.is_wrong(f"{client.__name__}: {type(error).__name__}: {error}")
                    connection.close()

    def is_wrong(self, what: str) -> None:
        self.told.errors += 1
        if len(self.told.wrong) < SHOWN:
            self.told.wrong.append(what)

    async def pause(self, seconds: float) -> None:
        await asyncio.sleep(min(seconds, self.left))

    async def noted(self, kind: str, answer: Answer) -> bool:
        """Whether the answer is what was asked for; after a refusal, when its time has come."""
        self.told.seconds.setdefault(kind, []).append(answer.seconds)
        self.told.statuses.setdefault(kind, Counter())[answer.status] += 1
        if answer.status < 300:
            return True
        if answer.status not in ALLOWED or not 1 <= (answer.retry_after or 0) <= 120:
            self.is_wrong(f"{kind}: {answer.status} {answer.headers} {answer.body[:300]!r}")
        await self.pause(answer.retry_after or 1)
        return False

    async def chat(self, connection: Connection) -> None:
        words = " ".join(self.lot.choices(("hello", "there", "how", "are", "you"), k=4))
        body = {"model": self.asked.chat_model, "messages": [{"role": "user", "content": words}], "stream": True}
        body |= {"max_tokens": 16, "seed": self.lot.randrange(SEEDS)}
        answer = await connection.begin("POST", "/v1/chat/completions", body)
        events = [event async for event in connection.events(answer)]
        if not await self.noted("chat", answer):
            return
        self.told.pieces += max(0, len(events) - 1)
        if not events or events[-1] != "[DONE]":
            self.is_wrong(f"chat: ends with {events[-1:]}")

    async def submit(self, connection: Connection) -> None:
        request = {"prompt": "a red apple", "width": 64, "height": 64, "steps": 1, "seed": self.lot.randrange(SEEDS)}
        while self.left:
            answer = await connection.ask("POST", "/api/jobs", {"model": self.asked.image_model, "request": request})
            if await self.noted("submit", answer):
                self.newest.append(answer.json()["id"])
                self.told.jobs.append(self.newest[-1])
                await self.pause(self.lot.uniform(0.0, 2.0))
                return

    async def poll(self, connection: Connection) -> None:
        question = self.lot.choice(QUESTIONS)
        if question == "JOB":
            if not self.newest:
                await self.pause(0.1)
                return
            question = f"/api/jobs/{self.lot.choice(self.newest)}"
        kind = "job" if question.startswith("/api/jobs/") else question.partition("?")[0]
        await self.noted(kind, await connection.ask("GET", question))
        await self.pause(self.lot.uniform(0.0, 0.5))

    async def listen(self, connection: Connection) -> None:
        """To a job until it ends, or the time is over."""
        if not self.newest:
            await self.pause(0.1)
            return
        answer = await connection.begin("GET", f"/api/jobs/{self.lot.choice(self.newest)}/events")
        if not await self.noted("events", answer):
            connection.close()
            return
        try:
            async with asyncio.timeout(self.left):
                last = [json.loads(event) async for event in connection.events(answer)][-1]
        except TimeoutError:
            connection.close()
            return
        if last.get("state") not in ("finished", "cancelled"):
            self.is_wrong(f"events: end with {last}")


if __name__ == "__main__":
    tell(lambda asked: Crowd(Asked(**asked)))
