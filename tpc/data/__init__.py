"""Data sets: the embedded digits and CIFAR-10, with download, verification and listing."""

from tpc.data.catalogue import SOURCES, default_data_dir, get, load, ls, verify
from tpc.data.dataset import Dataset, Normalisation
from tpc.data.source import Download, FileCheck, Holding, Source

__all__ = [
    "SOURCES",
    "Dataset",
    "Download",
    "FileCheck",
    "Holding",
    "Normalisation",
    "Source",
    "default_data_dir",
    "get",
    "load",
    "ls",
    "verify",
]
