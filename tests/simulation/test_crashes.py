"""Whatever happens, a broker that crashes keeps its promises."""

import pytest
from simulation import Simulation
from watching import no_internal_error

LIVES = 10


@pytest.mark.parametrize("seed", range(10))
def test_a_broker_that_crashes_keeps_its_promises(seed: int) -> None:
    with no_internal_error():
        simulation = Simulation(seed)
        for _ in range(LIVES):
            simulation.live(simulation.random.choice((10, 30, 60)))
            simulation.die()
