"""How people come in and prove who they are: passwords, providers' pages, devices, second factors."""

from __future__ import annotations

from typing import Literal

from pydantic import AwareDatetime, BaseModel, Field

from libs.common.contracts.messages.tokens import IssuedToken


class LoginRequest(BaseModel):
    user: str = Field(max_length=253)
    password: str = Field(max_length=1024)
    description: str = Field(default="", max_length=256)
    client_address: str = ""
    provider: str = Field(default="local", max_length=63, description="Where the account is.")
    one_time_code: str = Field(default="", max_length=64, description="Second factor: a code, or a recovery code.")
    session: bool = Field(default=False, description="True: a browser's session, else a token for a command line.")


class SignInOption(BaseModel):
    """One way to sign in. `flow`: a form for name and password, or a redirect to the provider."""

    provider: str
    display_name: str
    type: str
    flow: Literal["password", "redirect"]


class SignInOptions(BaseModel):
    options: list[SignInOption] = Field(default_factory=list)


class RedirectBegin(BaseModel):
    """Begin a sign-in at a provider that has a page of its own, or, with an `identity`, link the account there to the caller."""

    provider: str = Field(max_length=63)
    redirect_uri: str = Field(max_length=2048, description="Where the provider sends the browser back to.")
    return_to: str = Field(
        default="", max_length=2048, description="Path of the UI to go on with, or a CLI's own address."
    )
    session: bool = False
    description: str = Field(default="", max_length=256)
    identity: str = ""


class RedirectBegun(BaseModel):
    """`pending` is sealed and belongs into a cookie of the browser that is sent to `url`: the answer counts with it alone."""

    url: str
    pending: str
    expires_at: AwareDatetime


class RedirectFinish(BaseModel):
    """The browser is back: the parameters as they came, and the cookie."""

    provider: str = Field(max_length=63)
    redirect_uri: str = Field(max_length=2048)
    parameters: dict[str, str]
    pending: str = Field(max_length=8192)
    client_address: str = ""
    identity: str = Field(default="", description="For linking: the caller, who must be the one that began.")


class RedirectFinished(BaseModel):
    """`issued` is absent where an account was linked and nobody signed in."""

    issued: IssuedToken | None = None
    return_to: str = ""
    session: bool = False
    linked: str = ""


class PasswordChange(BaseModel):
    """Set a password: one's own with the current one, another person's by whoever may update users and holds all their rights."""

    identity: str
    user: str
    current_password: str = Field(default="", max_length=1024)
    new_password: str = Field(max_length=1024)
    must_change: bool = Field(
        default=False,
        description="Not looked at: what another person set has to be changed at the next sign-in, always.",
    )


class BrowserCallback(BaseModel):
    """Where a command line listens for the browser of its own machine (RFC 8252 7.3), and the S256 challenge that its code is bound to (RFC 7636).

    A port and never an address: the browser is only ever sent to 127.0.0.1.
    """

    port: int = Field(ge=1024, le=65535, examples=[49152])
    state: str = Field(pattern=r"^[A-Za-z0-9_-]{16,128}$", examples=["dA0BJd6fUyFvqTtPr3oY7w"])
    code_challenge: str = Field(
        pattern=r"^[A-Za-z0-9_-]{43}$", examples=["E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"]
    )


class DeviceBegin(BaseModel):
    """A machine asks to be let in by somebody who is signed in elsewhere, or with `browser` in the browser of that very machine."""

    description: str = Field(default="", max_length=256)
    client_address: str = ""
    browser: BrowserCallback | None = None


class DeviceBegun(BaseModel):
    """`device_code` stays with the machine, `user_code` is shown to the person."""

    device_code: str
    user_code: str
    interval_s: int
    expires_at: AwareDatetime


class DeviceAnswer(BaseModel):
    """The signed-in person: what is that code (no answer yet), or the decision.

    `browser`: the code came in an address that a command line opened, not from the person's hand; each is good for its own kind alone.
    """

    identity: str
    user_code: str = Field(max_length=32)
    answer: Literal["", "approve", "deny"] = ""
    browser: bool = False


class DeviceShown(BaseModel):
    """What asks, as it says, and from where, as the front door saw it. `redirect`: where the answer takes the browser."""

    description: str
    client_address: str
    redirect: str = ""


class DeviceFetch(BaseModel):
    """`code` is what the browser brought, and `code_verifier` what its challenge was made of; for a machine without a browser both are empty."""

    device_code: str = Field(max_length=128)
    client_address: str = ""
    code: str = Field(default="", max_length=128)
    code_verifier: str = Field(default="", max_length=128)


class DeviceFetched(BaseModel):
    """`issued` is absent while nobody has answered."""

    issued: IssuedToken | None = None


class SecondFactorBegin(BaseModel):
    """Set up one-time codes for the caller, who gives the password again. `hub` is the name that the device shows."""

    identity: str
    password: str = Field(max_length=1024)
    hub: str = Field(default="Herdsman", max_length=64)


class SecondFactorBegun(BaseModel):
    """The only time that the secret is seen. It counts once a code of it was confirmed."""

    secret: str
    uri: str


class SecondFactorConfirm(BaseModel):
    identity: str
    password: str = Field(max_length=1024)
    code: str = Field(max_length=64)


class RecoveryCodes(BaseModel):
    """Each is good for one sign-in without the device. The only time that they are seen."""

    codes: list[str]


class SecondFactorRemove(BaseModel):
    """One's own with password and a code, or another person's (`user`) by whoever may set that person's password."""

    identity: str
    user: str = Field(default="", max_length=253)
    password: str = Field(default="", max_length=1024)
    code: str = Field(default="", max_length=64)
