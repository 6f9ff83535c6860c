"""Options before the subcommand's name."""

from dataclasses import dataclass


@dataclass(slots=True)
class State:
    """Options of the whole command line; `reconciles` is set where no beat repairs what was lost."""

    reconciles: bool = False


STATE = State()
