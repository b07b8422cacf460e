"""Validation of plans that the program makes from other plans."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from scanseg.errors import InputError
from scanseg.specs import Plan, describe_faults


def validated_plan(content: Mapping[str, Any], *, purpose: str) -> Plan:
    """Return a plan of its content.

    Args:
        content: Fields of the plan.
        purpose: Reason for the new plan, for the message.

    Raises:
        InputError: The fields contradict each other. One message lists all faults.
    """
    try:
        return Plan.model_validate(content)
    except ValidationError as error:
        faults = describe_faults(error, content=content)
        raise InputError(f"{purpose}: expected a valid plan, got {faults}. Make a new plan.") from error
