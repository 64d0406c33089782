"""Settings of the server processes: environment variables with the prefix ABRUZZI_."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from abruzzi.contracts.stage import DirectoryStore, StoreConfig


class Settings(BaseSettings):
    """One class for API, controller and migrations; each reads what it needs."""

    model_config = SettingsConfigDict(env_prefix="ABRUZZI_", extra="ignore", use_attribute_docstrings=True)

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
    admin_token: SecretStr | None = None
    """Made valid at start-up, for the first sign-in."""

    def store_config(self) -> StoreConfig:
        return self.store or DirectoryStore(root=str(self.home / "store"))

    def require(self, name: str) -> str:
        """Value of a secret setting. Raises SystemExit with the variable's name."""
        value: SecretStr | None = getattr(self, name)
        if value is None:
            raise SystemExit(f"ABRUZZI_{name.upper()} is not set")
        return value.get_secret_value()
