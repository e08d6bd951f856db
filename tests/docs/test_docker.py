"""What the files of docker/ must not lose; there is no Docker here to run them with."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

DOCKER = Path(__file__).resolve().parents[2] / "docker"
COMPOSE = (DOCKER / "compose.yaml").read_text(encoding="utf-8")
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE)["services"]

each_service = pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES)


@each_service
def test_ports_are_published_on_the_loopback_only(service: dict[str, Any]) -> None:
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
    assert "network_mode" not in service


@each_service
def test_no_service_can_gain_privileges(service: dict[str, Any]) -> None:
    assert "no-new-privileges:true" in service["security_opt"]
    assert not {"privileged", "cap_add", "user"} & set(service)


@each_service
def test_services_are_checked_and_waited_for(service: dict[str, Any]) -> None:
    assert service["healthcheck"]["test"][0] == "CMD"
    for other, needed in service.get("depends_on", {}).items():
        assert needed["condition"] == "service_healthy"
        assert other in SERVICES


def test_secrets_must_be_given() -> None:
    secret = re.compile(r"^ *\w*(?:PASSWORD|TOKEN): *(.*)$", re.MULTILINE)
    values = secret.findall(COMPOSE)
    assert len(values) == 3
    assert all(re.fullmatch(r"\$\{[A-Z_]+:\?[^}]+\}", value) for value in values)


def test_mlflow_answers_to_its_own_names_only() -> None:
    (option,) = (o for o in SERVICES["mlflow"]["command"] if o.startswith("--allowed-hosts="))
    hosts = option.partition("=")[2].split(",")
    assert set(hosts) == {"mlflow:5000", "127.0.0.1:5000", "localhost:5000"}
    assert SERVICES["ray-head"]["environment"]["MLFLOW_TRACKING_URI"] == f"http://{hosts[0]}"


def test_image_does_not_run_as_root() -> None:
    instructions = (DOCKER / "Dockerfile").read_text(encoding="utf-8").splitlines()
    users = [line.split()[1] for line in instructions if line.startswith("USER ")]
    assert users
    assert users[-1] not in ("root", "0")


def test_gpus_go_to_one_node() -> None:
    (worker,) = yaml.safe_load((DOCKER / "compose.gpu.yaml").read_text())["services"].items()
    name, added = worker
    assert name in SERVICES
    assert added["deploy"]["replicas"] == 1
    assert added["deploy"]["resources"]["reservations"]["devices"][0]["capabilities"] == ["gpu"]
