"""Exchange of models and plans with other programs."""

from scanseg.interop.nnunet_import import import_nnunet

__all__ = ["import_nnunet"]
