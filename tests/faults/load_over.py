"""R12's clients, in a process of their own: ten times as many as the queue has places, each with one picture after
another. All but a few do as they are told; those knock again at once, whatever they are told.

Reads what to do as JSON from its argument (see `Asked`) and prints what happened as one line of JSON (`Told`).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from openai import AsyncOpenAI, RateLimitError

from faults.load_crowd import SEEDS, Clock, tell
from faults.load_http import Answer, Connection

FIRST_S = 2.0
"""OpenAI's clients come before the others."""
KNOCKS_S = 0.2


@dataclass(frozen=True)
class Asked:
    """How many clients of each kind; `official` is OpenAI's, as it is. `steps` of each picture."""

    port: int
    seconds: float
    official: int
    obedient: int
    knocking: int
    image_model: str
    steps: int
    seed: int


@dataclass
class Told:
    """`refused_s`: seconds until a refusal; `told_s`: what its Retry-After said; `retries`: by how many of them an
    obedient client's picture was accepted; `jobs`: those accepted."""

    refused_s: list[float] = field(default_factory=list)
    accepted_s: list[float] = field(default_factory=list)
    told_s: list[int] = field(default_factory=list)
    retries: Counter[int] = field(default_factory=Counter)
    first_failed: int = 0
    jobs: list[str] = field(default_factory=list)
    official_made: int = 0
    official_gave_up: int = 0
    wrong: list[str] = field(default_factory=list)


class Crowd(Clock):
    def __init__(self, asked: Asked) -> None:
        super().__init__(asked.seconds, asked.seed)
        self.asked, self.told = asked, Told()

    async def run(self) -> Told:
        async with asyncio.TaskGroup() as group:
            for number in range(self.asked.obedient + self.asked.knocking):
                group.create_task(self.client(obeys=number < self.asked.obedient))
            for _ in range(self.asked.official):
                group.create_task(self.officially())
        return self.told

    async def client(self, *, obeys: bool) -> None:
        await asyncio.sleep(FIRST_S + self.lot.random())
        async with Connection(self.asked.port) as connection:
            while self.left:
                job_id = await (self.accepted(connection) if obeys else self.knocked(connection))
                if job_id is not None:
                    await self.ended(connection, job_id)

    async def officially(self) -> None:
        """Who still waits at the end leaves, and his picture is not made."""
        address = f"http://127.0.0.1:{self.asked.port}/v1"
        async with AsyncOpenAI(base_url=address, api_key="none", timeout=600.0) as client:
            try:
                async with asyncio.timeout(self.left):
                    while True:
                        await self.made(client)
            except TimeoutError:
                return

    async def made(self, client: AsyncOpenAI) -> None:
        more = {"steps": self.asked.steps}
        try:
            await client.images.generate(model=self.asked.image_model, prompt="a pear", size="64x64", extra_body=more)
            self.told.official_made += 1
        except RateLimitError:
            self.told.official_gave_up += 1

    def body(self) -> dict[str, Any]:
        request = {"prompt": "a red apple", "width": 64, "height": 64, "steps": self.asked.steps}
        return {"model": self.asked.image_model, "request": request | {"seed": self.lot.randrange(SEEDS)}}

    async def accepted(self, connection: Connection) -> str | None:
        """The job, when it was accepted; None where the time was over before."""
        body, retries = self.body(), 0
        while True:
            answer = await self.submit(connection, body)
            if answer.status == 202:
                self.told.retries[retries] += 1
                return str(answer.json()["id"])
            self.told.first_failed += retries == 1
            pause = answer.retry_after or 1
            if self.left <= pause:
                await asyncio.sleep(self.left)
                return None
            await asyncio.sleep(pause)
            retries += 1

    async def knocked(self, connection: Connection) -> str | None:
        answer = await self.submit(connection, self.body())
        if answer.status == 202:
            return str(answer.json()["id"])
        await asyncio.sleep(min(self.left, KNOCKS_S))
        return None

    async def submit(self, connection: Connection, body: dict[str, Any]) -> Answer:
        answer = await connection.ask("POST", "/api/jobs", body)
        if answer.status == 202:
            self.told.accepted_s.append(answer.seconds)
            self.told.jobs.append(answer.json()["id"])
        elif answer.status == 429 and answer.retry_after is not None:
            self.told.refused_s.append(answer.seconds)
            self.told.told_s.append(answer.retry_after)
        else:
            self.told.wrong.append(f"{answer.status} {answer.headers} {answer.body[:300]!r}")
        return answer

    async def ended(self, connection: Connection, job_id: str) -> None:
        """Wait until the job has ended; who waits beyond the time may leave."""
        answer = await connection.begin("GET", f"/api/jobs/{job_id}/events")
        try:
            async with asyncio.timeout(self.left):
                async for _ in connection.events(answer):
                    pass
        except TimeoutError:
            connection.close()


if __name__ == "__main__":
    tell(lambda asked: Crowd(Asked(**asked)))
