"""What a run leaves: the model of a limit or a network of finite width, whichever a file holds."""

from __future__ import annotations

from pathlib import Path

from tpc.runtime.models.model import Model
from tpc.runtime.networks.network import Network
from tpc.runtime.networks.network_file import is_network


def load_trained(path: str | Path, backend: str | None = None) -> Model | Network:
    """The model or the network in a file. Raises DataError for a damaged one."""
    return Network.load(path, backend) if is_network(path) else Model.load(path, backend)
