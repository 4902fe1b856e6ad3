"""What one training of many takes of a machine."""

from pydantic import Field, NonNegativeFloat, PositiveFloat

from mtan_core.config import Frozen


class ResourcesConfig(Frozen):
    """What one trial takes. Its `threads` are its CPUs."""

    cpus: PositiveFloat = Field(1.0, description="CPUs of a trial")
    gpus: NonNegativeFloat = Field(0.0, description="GPUs of a trial; fractions share one")
