"""Documents: what is decided, stored as JSON. Neither torch nor numpy is known here."""

from scanseg.specs.augmentation import (
    AffineTransform,
    BrightnessTransform,
    ContrastTransform,
    GammaTransform,
    GaussianBlurTransform,
    GaussianNoiseTransform,
    LowResolutionTransform,
    MirrorTransform,
    Transform,
)
from scanseg.specs.base import Document, describe_faults
from scanseg.specs.dataset import BACKGROUND, IGNORE, DatasetSpec, Fold, Splits
from scanseg.specs.fingerprint import CaseMeasures, Fingerprint, IntensityStatistics
from scanseg.specs.network import (
    MSVMUNetSpec,
    NetworkSpec,
    PlainUNetSpec,
    ResidualUNetSpec,
    StagedSpec,
    XLSTMUNetSpec,
)
from scanseg.specs.plan import (
    AdamWSpec,
    InferenceSpec,
    LossSpec,
    Plan,
    SamplingSpec,
    ScheduleSpec,
    SGDSpec,
    TrainingSpec,
)
from scanseg.specs.preprocessing import (
    CTNormalization,
    NoNormalization,
    Normalization,
    PreprocessingSpec,
    RescaleNormalization,
    ZScoreNormalization,
)
from scanseg.specs.run import RunRecord, TrainingState
from scanseg.specs.store import CaseGeometry, StoredCase, StoreIndex

__all__ = [
    "BACKGROUND",
    "IGNORE",
    "AdamWSpec",
    "AffineTransform",
    "BrightnessTransform",
    "CTNormalization",
    "CaseGeometry",
    "CaseMeasures",
    "ContrastTransform",
    "DatasetSpec",
    "Document",
    "Fingerprint",
    "Fold",
    "GammaTransform",
    "GaussianBlurTransform",
    "GaussianNoiseTransform",
    "InferenceSpec",
    "IntensityStatistics",
    "LossSpec",
    "LowResolutionTransform",
    "MSVMUNetSpec",
    "MirrorTransform",
    "NetworkSpec",
    "NoNormalization",
    "Normalization",
    "PlainUNetSpec",
    "Plan",
    "PreprocessingSpec",
    "RescaleNormalization",
    "ResidualUNetSpec",
    "RunRecord",
    "SGDSpec",
    "SamplingSpec",
    "ScheduleSpec",
    "Splits",
    "StagedSpec",
    "StoreIndex",
    "StoredCase",
    "TrainingSpec",
    "TrainingState",
    "Transform",
    "XLSTMUNetSpec",
    "ZScoreNormalization",
    "describe_faults",
]
