"""docker-compose.yml: valid by the Compose specification, secrets demanded, .env.example complete, nothing open that need not be.

tests/schemas/compose-spec.json is schema/compose-spec.json of the Go module github.com/compose-spec/compose-go/v2 v2.16.2 (Apache-2.0).
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import compose_file
import pytest
import yaml
from jsonschema import Draft7Validator

from abruzzi.kit.settings import Settings

SCHEMA = json.loads((compose_file.ROOT / "tests/schemas/compose-spec.json").read_text())
FILLED = {name: value or "changed" for name, value in compose_file.example().items()}
SECRETS = ("PASSWORD", "KEY", "TOKEN")


def test_the_file_is_valid_by_the_specifications_schema() -> None:
    assert [e.message for e in Draft7Validator(SCHEMA).iter_errors(compose_file.load(FILLED))] == []


def test_docker_itself_takes_it(tmp_path: Path) -> None:
    if not shutil.which("docker") or subprocess.run(["docker", "compose", "version"], capture_output=True).returncode:
        return  # checked by the schema alone where Docker Compose is not
    env = tmp_path / "env"
    env.write_text("".join(f"{name}={value}\n" for name, value in FILLED.items()))
    command = ["docker", "compose", "--env-file", str(env), "-f", str(compose_file.COMPOSE), "config", "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_variable_is_in_the_example_and_nothing_else_is() -> None:
    assert set(compose_file.example()) == set(compose_file.variables())


@pytest.mark.parametrize("name", [name for name, is_required in compose_file.variables().items() if is_required])
def test_a_secret_that_is_not_given_stops_the_start(name: str) -> None:
    with pytest.raises(compose_file.MissingVariable, match=name):
        compose_file.load({**FILLED, name: ""})


def test_no_secret_has_a_default() -> None:
    required = {name for name, is_required in compose_file.variables().items() if is_required}
    secret = {name for name in compose_file.variables() if name.endswith(SECRETS)}
    assert secret - required == {"ABRUZZI_SMTP_PASSWORD"}, "a mail server may ask for none"
    assert [name for name in secret if compose_file.example()[name]] == []


def test_ports_are_open_on_loopback_only() -> None:
    ports = [port for service in compose_file.load(FILLED)["services"].values() for port in service.get("ports", ())]
    assert ports
    assert [port for port in ports if not port.startswith("127.0.0.1:")] == []


def test_our_own_containers_have_a_read_only_root_and_no_capabilities() -> None:
    ours = [s for s in compose_file.load(FILLED)["services"].values() if s["image"].startswith("abruzzi:")]
    assert len(ours) == 5
    for service in ours:
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]


def test_every_setting_of_ours_is_one_that_the_processes_read() -> None:
    known = {f"ABRUZZI_{name.upper()}" for name in Settings.model_fields}
    for name, service in compose_file.load(FILLED)["services"].items():
        if service["image"].startswith("abruzzi:"):
            given = {variable for variable in service["environment"] if variable.startswith("ABRUZZI_")}
            assert given <= known, (name, given - known)


def test_what_is_provisioned_parses_and_names_what_is_there() -> None:
    file = compose_file.load(FILLED)
    contents = {name: yaml.safe_load(config["content"]) for name, config in file["configs"].items()}
    services = file["services"]
    for job in contents["prometheus"]["scrape_configs"]:
        for target in job["static_configs"][0]["targets"]:
            assert target.split(":")[0] in services
    [source] = contents["grafana_datasource"]["datasources"]
    assert source["url"] == "http://prometheus:9090"
    [provider] = contents["grafana_dashboards"]["providers"]
    mounted = {volume.split(":")[1]: volume.split(":")[0] for volume in services["grafana"]["volumes"]}
    assert list((compose_file.ROOT / mounted[provider["options"]["path"]]).glob("*.json"))
