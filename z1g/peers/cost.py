"""What a system costs, by a `cost.json` beside its outputs."""

from pathlib import Path

from z1g.config.peers import PeerCost
from z1g.core.errors import UserError
from z1g.core.files import read_json
from z1g.core.slots import first_reason

FILE = "cost.json"


def read_cost(folder: Path) -> PeerCost | None:
    """The costs of a folder's `cost.json`, None if there is none. Raises UserError if it is not one."""
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        return PeerCost.model_validate(read_json(path))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: {first_reason(error)}; its keys are {', '.join(PeerCost.model_fields)}") from error
