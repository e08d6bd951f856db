"""How scores are estimated: a section of experiment files."""

from collections.abc import Collection
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

PositiveInt = Annotated[int, Field(ge=1, strict=True)]
Flag = Annotated[bool, Field(strict=True)]
Device = Literal["cpu", "cuda"]


class Frozen(BaseModel):
    """A section of an experiment, or a trial."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    def content(self, without: Collection[str] = ()) -> dict[str, Any]:
        """Return all fields as JSON values, defaults included, for a content key."""
        return self.model_dump(mode="json", exclude=set(without))


class GaussianConfig(Frozen):
    """How Gaussian information is computed; mint.pruning.gaussian has the formulas.

    Attributes:
        noise: of the pre-activations, as a share of their mean variance in the layer.
        damping: noise of the other parents, as a share of the mean variance of the parents.
    """

    noise: Annotated[float, Field(gt=0, strict=True)] = 0.1
    damping: Annotated[float, Field(gt=0, strict=True)] = 0.01


class EstimateConfig(Frozen):
    """How the scores of MINT are estimated.

    Attributes:
        bootstraps: number of estimates averaged; with a reliability, the largest number.
        reliability: stop once the scores reach this reliability; None to use all bootstraps.
        paper: estimate as the MINT paper does, without scaling activations and with nearest
            neighbours as partners; mint.gmi.estimator explains the difference.
        device: cuda estimates on the GPU of a trial on a GPU. Its scores differ by rounding, so
            the trial's field estimator, which copies it, belongs to the keys.
        memory_gb: gigabytes (10^9 bytes) that the estimator of a trial may use; None for half of
            the trial's share of the machine or the card. It changes no score, so no key has it.
        gaussian: how Gaussian information is computed.
    """

    bootstraps: PositiveInt
    reliability: Annotated[float, Field(gt=0, lt=1)] | None = None
    paper: Flag = False
    device: Device = "cpu"
    memory_gb: Annotated[float, Field(gt=0)] | None = None
    gaussian: GaussianConfig = GaussianConfig()

    def content(self, without: Collection[str] = ()) -> dict[str, Any]:
        """Return the fields that scores depend on as JSON values."""
        # The keys of trials from before there was a section gaussian stay as they are.
        new = () if self.gaussian != GaussianConfig() else {"gaussian"}
        return super().content({*without, "device", "memory_gb", *new})
