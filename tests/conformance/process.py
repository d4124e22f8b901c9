"""What a process that is killed does; a module of its own, because each process imports it anew."""

from collections.abc import Iterator
from multiprocessing.connection import Connection

from storage.store import Store
from tasks.driver.plan import Plan
from tasks.units.ready import ready_units
from tasks.units.unit import Unit


def units_left(planned: Plan) -> Iterator[Unit]:
    """Yield every unit of a plan that is not committed, in an order in which they can be done."""
    store, run = Store(planned.store), planned.runs[-1]
    yield from planned.contexts
    for job in (*planned.moments, *planned.trainings):
        while units := job.next_units(store):
            yield units[0]
    while units := ready_units(store, run):
        yield units[0]


def do_all(planned: Plan, tell: Connection) -> None:
    """What a process does: every unit, saying so before it begins."""
    from tasks.workers.worker import Worker

    worker = Worker(planned.store)
    for unit in units_left(planned):
        tell.send((unit.kind, unit.unit_id))
        worker.do(unit)
    tell.send(("end", ""))
