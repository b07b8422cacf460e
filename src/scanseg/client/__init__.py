"""A client of `scanseg serve`, without PyTorch."""

from scanseg.client.connection import Client, JobStatus
from scanseg.client.folder import RemoteCase, predict_folder

__all__ = ["Client", "JobStatus", "RemoteCase", "predict_folder"]
