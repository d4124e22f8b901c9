"""What can go wrong between an experiment and its results.

TaskError
├── InputError        the experiment asks for something that is not there (model, data set, layer, GPUs)
│   └── NothingToEdit no record of a data set can be edited
├── ClusterError      Ray has no room, an actor does not start, or Prefect's server has gone
├── LedgerMismatch    replayed weights are not those that were committed
└── Stopped           the run was asked to end before it was done
"""

from editing.errors import did_you_mean as did_you_mean


class TaskError(Exception):
    """Base of all errors of this package."""


class InputError(TaskError):
    """The experiment asks for something that is not there."""


class NothingToEdit(InputError):
    """No record of a data set can be edited."""


class ClusterError(TaskError):
    """Ray has no room, an actor does not start, or Prefect's server has gone."""


class LedgerMismatch(TaskError):
    """Replayed weights are not those that were committed."""


class Stopped(TaskError):
    """The run was asked to end before it was done."""
