"""Packages that use each field of a plan, for the reference.

`tests/site/test_plan_field_users.py` compares them with the accesses in the code.
"""

STAGES = ("preprocessing", "batches", "networks", "training", "inference")
"""Packages whose every use of a field is listed."""

_BY_DOCUMENT = {
    "PreprocessingSpec": "preprocessing",
    "SamplingSpec": "batches",
    "TrainingSpec": "training",
    "InferenceSpec": "inference",
    "CascadeSpec": "batches",
    "ScheduleSpec": "training",
    "LossSpec": "training",
    "EarlyStopSpec": "training",
}
"""Users of the fields of a document, unless `_BY_FIELD` or `_BY_ENDING` has others."""

_BY_ENDING = {
    "Transform": "batches",
    "Normalization": "preprocessing",
    "UNetSpec": "networks",
    "ResNetSpec": "networks",
    "UNETRSpec": "networks",
    "SGDSpec": "training",
    "AdamWSpec": "training",
}
"""Users of the fields of documents by the ending of their name."""

_BY_FIELD = {
    "Plan.format": "all commands",
    "Plan.recipe": "training, inference, reports",
    "Plan.size": "reports",
    "Plan.dataset": "batches, training, inference, reports",
    "Plan.dataset_path": "planning, reports",
    "Plan.dataset_digest": "planning, reports",
    "Plan.num_axes": "planning, inference, reports",
    "Plan.spacing_range": "inference",
    "Plan.mirror_likeness": "planning",
    "Plan.preprocessing": "preprocessing, training, inference",
    "Plan.sampling": "batches, training, inference",
    "Plan.augmentation": "batches, training",
    "Plan.network": "networks, training",
    "Plan.training": "training, inference",
    "Plan.inference": "inference, training",
    "Plan.cascade": "batches, training, inference",
    "DatasetSpec.name": "training, evaluation, reports",
    "DatasetSpec.channel_names": "preprocessing, inference",
    "DatasetSpec.labels": "training, evaluation",
    "DatasetSpec.regions_class_order": "inference",
    "DatasetSpec.file_ending": "training, inference",
    "DatasetSpec.label_colours": "inference",
    "PreprocessingSpec.orientation": "preprocessing, inference",
    "PreprocessingSpec.axis_order": "preprocessing, inference",
    "PreprocessingSpec.normalizations": "preprocessing, inference",
    "PreprocessingSpec.spacing": "preprocessing, inference",
    "SamplingSpec.patch_size": "batches, training, inference",
    "SamplingSpec.batch_size": "batches, training",
    "SamplingSpec.order": "batches, training",
    "TrainingSpec.precision": "training, inference",
    "InferenceSpec.window_batch": "inference, training",
    "CascadeSpec.first_stage": "planning",
}
"""Users of fields by document and name."""


def users_of(document: str, field: str) -> str:
    """Return the packages that use a field of a document, separated by commas."""
    if f"{document}.{field}" in _BY_FIELD:
        return _BY_FIELD[f"{document}.{field}"]
    if document in _BY_DOCUMENT:
        return _BY_DOCUMENT[document]
    users = next(users for ending, users in _BY_ENDING.items() if document.endswith(ending))
    return "networks, training" if (users, field) == ("networks", "kind") else users
