# SPDX-License-Identifier: Apache-2.0
"""Which object each value of an evaluation is of."""

import numpy as np
from ignite.engine import Engine, Events
from monai.utils import string_list_all_gather

from ..prompts.case_id import read_case
from ..reports.tables import Columns, ObjectRow, align, list_rows


class CaseCollector:
    """Note the cases of an evaluation as they come, and give its metrics' values beside them."""

    def __init__(self) -> None:
        self.cases: list[str] = []

    def attach(self, engine: Engine) -> None:
        """Attach to an evaluator, before what asks for the values."""
        engine.add_event_handler(Events.EPOCH_STARTED, lambda _: self.cases.clear())
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.collect)

    def collect(self, engine: Engine) -> None:
        self.cases += [item["case"] for item in engine.state.batch]

    def table(self, engine: Engine) -> tuple[list[ObjectRow], Columns]:
        """Return the rows of all processes, and for each metric its values of them; all processes must call."""
        rows = list_rows([read_case(case) for case in string_list_all_gather(self.cases)])
        details = {name: np.asarray(values.cpu(), float) for name, values in engine.state.metric_details.items()}
        return rows, align(details, rows)
