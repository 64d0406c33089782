"""Settings of the server processes: environment variables with the prefix ABRUZZI_."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, IPvAnyNetwork, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.quantity import ByteCount
from abruzzi.contracts.retention import RetentionPolicy
from abruzzi.contracts.stage import DirectoryStore, StoreConfig


class PlacementDefaults(BaseModel):
    """How the ranks of a stage lie on nodes where no pool says otherwise."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    queue: str = ""
    """Kueue LocalQueue of the namespace; empty: nobody queues."""
    ranks_per_node: int = Field(default=1, ge=1)
    cpu_cores: float = Field(default=1.0, gt=0)
    """Of one rank, as are the following."""
    memory: ByteCount = Field(default=4 << 30, gt=0)
    gpus: int = Field(default=0, ge=0)


class SandboxPods(BaseModel):
    """What a sandbox is on a cluster, and how many there are. A pod may use the whole of its limits, and nothing of its node beyond."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    image: str = Field(min_length=1)
    """With python3; the stages' own, so that their interpreter and its packages are there."""
    runtime_class: str = "gvisor"
    """RuntimeClass of the cluster; empty: the node's own runtime, whose kernel is the node's."""
    ready: int = Field(default=4, ge=0)
    """Started ahead: one that is taken is replaced."""
    most: int = Field(default=64, ge=1)
    """At once, with those ready; who asks for more waits."""
    per_attempt: int = Field(default=32, ge=1)
    """Of one attempt of a stage at once, so that none takes all; it waits for one of its own before it gets another."""
    cpu_cores: float = Field(default=1.0, gt=0)
    memory: ByteCount = Field(default=2 << 30, gt=0)
    disk: ByteCount = Field(default=4 << 30, gt=0)
    lifetime_seconds: int = Field(default=7200, ge=600)
    """activeDeadlineSeconds of a pod. One that nobody has taken for half of it is replaced, so the other half is the least that a program has."""
    image_pull_secrets: tuple[str, ...] = ()
    images: tuple[Annotated[str, Field(min_length=2)], ...] = ()
    """That stages may name instead, as suites do whose instances have one each: a repository as it is written, whatever the tag; or, ending with a slash, all
    below it. None by default."""

    def allows(self, image: str) -> bool:
        path, _, last = image.partition("@")[0].rpartition("/")
        name = last.partition(":")[0]
        repository = f"{path}/{name}" if path else name
        return any(repository.startswith(each) if each.endswith("/") else repository == each for each in self.images)


class OidcGrant(BaseModel):
    """What members of a group may do."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    group: str = Field(min_length=1)
    project: str = "default"
    role: Literal["viewer", "member", "maintainer", "admin"]


class OidcSettings(BaseModel):
    """Sign-in of the dashboard by an OpenID Connect provider (authorization code with PKCE). Who is in no group of `grants` is turned away."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    issuer: str = Field(pattern=r"^https?://[^\s?#]+$")
    """As the provider's own discovery document spells it."""
    client_id: str = Field(min_length=1)
    name: str = Field(default="single sign-on", max_length=40)
    """On the button."""
    scopes: str = "openid profile email"
    groups_claim: str = "groups"
    """Of the ID token or the userinfo answer; a path with dots, such as realm_access.roles."""
    grants: tuple[OidcGrant, ...] = Field(min_length=1)
    """In order: of several that fit, the first is taken, or the first of the project that was asked for."""
    session_hours: float = Field(default=12.0, gt=0, le=720)


class Settings(BaseSettings):
    """One class for API, controller, workers and migrations; each reads what it needs."""

    model_config = SettingsConfigDict(
        env_prefix="ABRUZZI_", env_ignore_empty=True, extra="ignore", use_attribute_docstrings=True
    )

    default_pool: str = "local"
    """Where stages run whose recipe says `pool = "local"`, as it does by default."""
    home: Path = Field(default_factory=lambda: Path.home() / ".abruzzi")
    database_url: SecretStr | None = None
    """Role abruzzi_app: row-level security applies."""
    controller_database_url: SecretStr | None = None
    """Role abruzzi_controller: sees all projects."""
    owner_database_url: SecretStr | None = None
    """For migrations only."""
    store: StoreConfig | None = Field(default=None, discriminator="kind")
    """JSON; by default a directory below home."""
    host: str = "127.0.0.1"
    port: int = 8600
    url: str | None = None
    """Where stages reach the API; by default http://host:port."""
    web_dir: Path | None = None
    """The built dashboard."""
    signing_key: SecretStr | None = None
    """Signs session cookies."""
    oidc: OidcSettings | None = None
    """JSON; needs `public_url`, where the provider sends people back to. Unset: people sign in with tokens only."""
    oidc_client_secret: SecretStr | None = None
    """Of a confidential client; public ones have none."""
    admin_token: SecretStr | None = None
    """Made valid at start-up, for the first sign-in."""
    stages_end_with_controller: bool = False
    """Local executor in a container: at the controller's end its stages are asked to save, and the next one lets their runs go on."""
    public_url: str | None = None
    """Where people reach the dashboard, for links in notifications; by default `url`."""
    metrics_port: int | None = None
    """Where the controller serves Prometheus' /metrics; unset: nowhere."""

    redis_url: SecretStr | None = None
    """Broker of the Celery workers. Unset: the controller does the side work in process."""
    webhook_schemes: frozenset[str] = frozenset({"https"})
    webhook_ports: frozenset[int] = frozenset({443, 8443})
    webhook_networks: tuple[IPvAnyNetwork, ...] = ()
    """Networks that webhooks may reach although they are not public, such as ["10.1.0.0/16"]."""
    smtp_host: str | None = None
    """Mail server of e-mail notifications; unset: none are accepted."""
    smtp_port: int = 587
    smtp_security: Literal["starttls", "tls", "none"] = "starttls"
    smtp_user: str | None = None
    smtp_password: SecretStr | None = None
    smtp_from: str = "abruzzi@localhost"
    retention: RetentionPolicy = RetentionPolicy()
    """JSON; what may go, and when."""
    verify_days: float = Field(default=30.0, gt=0)
    """An artifact whose digests were not read for so long is read again."""
    grafana_url: str | None = None
    grafana_token: SecretStr | None = None
    """Of a service account that may edit; with `grafana_url` set, dashboards are kept up to date there."""
    prometheus_url: str = "http://prometheus:9090"
    """As Grafana reaches it."""
    dashboards_dir: Path | None = None
    """The generated dashboards; by default charts/abruzzi/dashboards of the checkout."""

    executor: Literal["local", "kubernetes"] = "local"
    """Where stages run: as processes of the controller's machine, or as workloads of a cluster."""
    parallel_stages: int = Field(default=2, ge=1)
    """Of the local executor: so many stages run side by side that name no `resources.threads`, each counting for its share of the machine's
    cores. The others wait for their turn; a stage that names its threads counts for those."""
    namespace: str = "abruzzi-stages"
    """Of all stages in the cluster; restricted Pod Security."""
    stage_image: str | None = None
    """Image of the built-in stages (jobs/Containerfile)."""
    pod_template: Path | None = None
    """JSON of what an operator adds to every pod: volumes, mounts, environment, pull secrets. Users never can."""
    placement: PlacementDefaults = PlacementDefaults()
    """JSON; of stages on the platform's default pool."""
    peer_policies: bool = False
    """The stages' namespace lets pods reach nobody by themselves (the Helm chart's policies): an attempt of several gets a policy of its own."""
    sandboxes: SandboxPods | None = None
    """JSON; of `abruzzi-sandboxes`, the service of sandbox pods."""
    sandboxes_url: str | None = None
    """Where stages reach that service; unset: stages hold untrusted programs by their own means, or refuse."""
    platform: str = ""
    """Where several platforms share a cluster: this one takes `Run` objects of namespaces whose label abruzzi.io/platform names it."""

    def store_config(self) -> StoreConfig:
        return self.store or DirectoryStore(root=str(self.home / "store"))

    def require(self, name: str) -> str:
        """Value of a secret setting. Raises SystemExit with the variable's name."""
        value: SecretStr | None = getattr(self, name)
        if value is None:
            raise SystemExit(f"ABRUZZI_{name.upper()} is not set")
        return value.get_secret_value()

    def secret(self, name: str) -> str:
        """Value of a secret setting, for work that goes on without it. Raises AbruzziError `not_configured`."""
        value: SecretStr | None = getattr(self, name)
        if value is None:
            variable = f"ABRUZZI_{name.upper()}"
            raise AbruzziError(
                "not_configured", f"{variable} is not set.", status=500, hint=f"Set {variable} for this process."
            )
        return value.get_secret_value()
