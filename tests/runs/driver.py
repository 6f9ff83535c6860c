"""Runs the tasks of the use cases in this process: what was sent is collected, then carried out, as often as asked."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ingestion.dispatch import TaskMessage
from ingestion.runs.deliver import cancellation, loading, publishing, staging
from ingestion.runs.ingest import completion, fetching, planning, validation

TASKS: dict[str, Callable[..., object]] = {
    "ingestion.plan_run": planning.plan_run,
    "ingestion.fetch": lambda partition_id: fetching.fetch_partition(partition_id, is_chained=False),
    "ingestion.validate": validation.validate_partition,
    "ingestion.complete_run": completion.complete_run,
    "ingestion.deliver": staging.deliver_part,
    "ingestion.load": loading.load_delivery,
    "ingestion.publish_run": publishing.publish_run,
    "ingestion.abort_delivery": cancellation.abort_delivery,
}


@dataclass
class Driver:
    """The messages that were sent and not carried out yet; `history` holds all that ever were."""

    waiting: list[TaskMessage] = field(default_factory=list)
    history: list[TaskMessage] = field(default_factory=list)
    is_broken: bool = False

    def publish(self, call: TaskMessage, *, priority: int | None = None, countdown_s: float | None = None) -> bool:
        """Take a message, unless the broker is meant to be away."""
        if not self.is_broken:
            self.waiting.append(call)
            self.history.append(call)
        return not self.is_broken

    def send_chord(self, chains: Sequence[Sequence[TaskMessage]], body: TaskMessage) -> bool:
        """Take every link and the body, in the order a lucky broker would deliver them."""
        for links in chains:
            for call in links:
                self.publish(call)
        return self.publish(body)

    def step(self) -> object:
        """Carry the oldest message out."""
        call = self.waiting.pop(0)
        return TASKS[call.name](**call.ids)

    def drain(self, *, copies: int = 1, shuffle: random.Random | None = None, limit: int = 2000) -> int:
        """Carry messages out until none is left, each `copies` times and in any order; return how many."""
        done = 0
        while self.waiting:
            assert done < limit, f"the messages do not end: {self.waiting[:5]}"
            index = shuffle.randrange(len(self.waiting)) if shuffle else 0
            call = self.waiting.pop(index)
            for _ in range(copies):
                TASKS[call.name](**call.ids)
            done += 1
        return done

    def replay(self, shuffle: random.Random) -> None:
        """Deliver every message that was ever sent once more, late and in any order."""
        late = list(self.history)
        shuffle.shuffle(late)
        for call in late:
            TASKS[call.name](**call.ids)
        self.drain()
