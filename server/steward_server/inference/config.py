"""Settings of the inference room."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from steward_server.config import setting


@dataclass(frozen=True, slots=True)
class InferenceConfig:
    """Which policies are served, and to how many."""

    folder: Path | None = setting(
        None,
        "Folder of your own policies, `<policy>/<version>/model.onnx` and `policy.yaml`; they hide "
        "the built-in ones of the same name. Unset: `policies` in the data folder.",
    )
    default_policy: str = setting(
        "cartpole", "The policy of whoever names none, such as `cartpole` or `cartpole@3`."
    )
    load: str = setting(
        "start",
        "When policies are loaded: all of them at the `start`, or each on `demand`.",
        choices=("start", "demand"),
    )
    reload_interval_s: float = setting(
        5.0, "How often the folder is looked at for new versions, in seconds; 0: never.", minimum=0
    )
    max_agents: int = setting(
        10_000, "Agents with a state at a time, of each version of a policy.", minimum=1
    )
    max_agents_per_owner: int = setting(
        0, "The same for each caller; 0: as many as there may be.", minimum=0
    )
    when_full: str = setting(
        "refuse",
        "What becomes of a new agent when there is no room: it is `refuse`d, or takes the place of "
        "the one that was idle longest (`evict`).",
        choices=("refuse", "evict"),
    )
    idle_s: float = setting(
        3_600.0, "How long an agent's state is kept that makes no step, in seconds.", minimum=1
    )
    price_per_thousand_steps_usd: Decimal = setting(
        Decimal(0),
        "What agents pay for a thousand steps, in dollars, out of their budgets; 0: nothing.",
        minimum=0,
    )
    book_interval_s: float = setting(
        1.0, "How often what agents have to pay is booked, in seconds.", minimum=0.01
    )
    max_rows: int = setting(
        256, "Steps that are computed together at the most.", minimum=1, maximum=4_096
    )
    max_batch: int = setting(
        4_096, "Steps in one call or message at the most.", minimum=1, maximum=65_536
    )
    max_waiting_rows: int = setting(
        65_536, "Steps that may wait for a policy; more are refused.", minimum=1
    )
    threads: int = setting(
        1, "Threads that compute what takes longer than a millisecond.", minimum=1, maximum=64
    )
    jwt_enabled: bool = setting(
        False, "Take JWTs from inference clients beside the static token, and make them."
    )
    jwt_secret: str | None = setting(
        None, "HS256: the secret, at least 32 characters. RS256: path of the private key (PEM)."
    )
    jwt_algorithm: str = setting("HS256", "How JWTs are signed.", choices=("HS256", "RS256"))
    jwt_public_key_path: Path | None = setting(
        None, "RS256: path of the public key (PEM); unset: that of the private key."
    )
    jwt_issuer: str = setting("", "What JWTs must have as `iss`; empty: anything.")
    jwt_audience: str = setting("", "What JWTs must have as `aud`; empty: anything.")
    jwt_expiry_minutes: int = setting(
        60, "How long a JWT is good for whose caller does not say, in minutes.", minimum=1
    )
    jwt_max_expiry_minutes: int = setting(
        24 * 60, "The longest a JWT may be good for, in minutes; longer ones are cut.", minimum=1
    )
    jwt_mint_key: str | None = setting(
        None,
        "What `POST /auth/token` must be sent as Bearer; unset: anybody who reaches the server may "
        "have a token.",
    )
