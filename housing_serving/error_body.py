"""The one shape of every response that is not a success; apart, for clients that have no web framework."""

from pydantic import BaseModel, Field


class ErrorDetail(BaseModel):
    """One field of the request that is wrong."""

    field: str = Field(examples=["instances.0.longitude"])
    message: str = Field(examples=["Input should be greater than or equal to -124.5"])
    type: str = Field(examples=["greater_than_equal"])


class ErrorBody(BaseModel):
    """What went wrong."""

    code: str = Field(description="Stable, for programs.", examples=["invalid_request"])
    message: str = Field(description="For people.", examples=["1 field is invalid."])
    details: list[ErrorDetail] = Field(default_factory=list)


class ErrorResponse(BaseModel):
    """The body of every response that is not a success."""

    error: ErrorBody
    request_id: str | None = Field(None, examples=["6f1c1c0f4e0b4b0f8b7f3f3f1d2c9a55"])
