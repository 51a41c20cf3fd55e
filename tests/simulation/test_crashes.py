"""Whatever clients do and whenever it crashes, a broker keeps its promises."""

import os
from random import SystemRandom

import pytest
from simulation import Simulation
from watching import no_internal_error

# So many chains of lives in each part, of so many lives; more of them, and new ones in every run,
# with AMQPD_EXAMPLES (see conftest.py).
CHAINS, LIVES, PARTS = 10, 10, 10
FACTOR = int(os.environ.get("AMQPD_EXAMPLES", 1))
FIRST_SEED = 0 if FACTOR == 1 else SystemRandom().randrange(10**9)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_a_broker_that_crashes_again_and_again_keeps_its_promises(part: int) -> None:
    """Slow, since each of a thousand crashes is one of a broker with clients and their deeds."""
    count = CHAINS * FACTOR
    for seed in range(FIRST_SEED + part * count, FIRST_SEED + (part + 1) * count):
        simulation = Simulation(seed)
        try:
            with no_internal_error():
                simulation.run(LIVES)
        except AssertionError as error:
            error.add_note(f"Simulation({seed}).run({LIVES}), life {simulation.lives}")
            raise
