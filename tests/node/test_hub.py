"""Events from threads to those who wait for them in a loop."""

from __future__ import annotations

import asyncio
import threading

from relight.node.hub import Hub


async def listening(hub: Hub[int], job_id: str) -> tuple[list[int], asyncio.Task[None]]:
    """What is heard of a job, the end of which is 0."""
    heard: list[int] = []

    async def listen() -> None:
        heard.extend([event async for event in hub.listen(job_id, lambda event: event == 0)])

    task = asyncio.create_task(listen())
    await asyncio.sleep(0)
    return heard, task


def tell(hub: Hub[int], job_id: str, *events: int) -> None:
    def publish() -> None:
        for event in events:
            hub.publish(job_id, event)

    thread = threading.Thread(target=publish)
    thread.start()
    thread.join()


def test_all_listeners_of_a_job_hear_it_and_no_others() -> None:
    async def run() -> None:
        hub = Hub[int]()
        (first, one), (second, two), (other, third) = [await listening(hub, job) for job in ("a", "a", "b")]
        tell(hub, "a", 1, 2, 0)
        await asyncio.wait_for(asyncio.gather(one, two), 10)
        assert first == second == [1, 2, 0] and other == []
        third.cancel()
        await asyncio.gather(third, return_exceptions=True)
        assert not hub._queues, "nobody listens any more"

    asyncio.run(run())


def test_a_slow_listener_misses_what_came_between_but_not_the_end() -> None:
    async def run() -> None:
        hub = Hub[int]()
        heard, task = await listening(hub, "a")
        tell(hub, "a", *range(1, 501), 0)
        await asyncio.wait_for(task, 10)
        assert len(heard) == 64 and heard[-3:] == [499, 500, 0]

    asyncio.run(run())


def test_events_after_the_loop_has_closed_go_nowhere() -> None:
    hub = Hub[int]()

    async def leave_open() -> None:
        task = asyncio.create_task(anext(hub.listen("a", lambda event: False)))
        await asyncio.sleep(0)
        entry = hub._queues["a"]
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        hub._queues["a"] = entry + [(asyncio.get_running_loop(), asyncio.Queue(1))]

    asyncio.run(leave_open())
    hub.publish("a", 1)
