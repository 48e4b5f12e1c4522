"""Data sets: the embedded digits, CIFAR-10 and Omniglot, with download, verification and listing."""

from tpc.data.catalogue import SOURCES, default_data_dir, get, load, ls, verify
from tpc.data.classes import UNIT, ClassTable
from tpc.data.dataset import Dataset, Normalisation
from tpc.data.episodes import EpisodeBatch, episodes
from tpc.data.omniglot import Omniglot, load_omniglot
from tpc.data.source import Download, FileCheck, Holding, Source

__all__ = [
    "SOURCES",
    "UNIT",
    "ClassTable",
    "Dataset",
    "Download",
    "EpisodeBatch",
    "FileCheck",
    "Holding",
    "Normalisation",
    "Omniglot",
    "Source",
    "default_data_dir",
    "episodes",
    "get",
    "load",
    "load_omniglot",
    "ls",
    "verify",
]
