"""The files of docker/ against the programs and files they name; no Docker is needed."""

import re
import shlex
import tomllib
from typing import Any

import pytest
import yaml
from documents import ROOT, commands, mint_words, parse

DOCKER = ROOT / "docker"
DOCKERFILE = (DOCKER / "Dockerfile").read_text(encoding="utf-8")
_VARIABLE = re.compile(r"\$\{(\w+)(?::([-?])([^}]*))?\}")


def _default(variable: re.Match[str]) -> str:
    return variable[3] if variable[2] == "-" else f"value-of-{variable[1]}"


COMPOSE_TEXT = (DOCKER / "compose.yaml").read_text(encoding="utf-8")
COMPOSE: dict[str, Any] = yaml.safe_load(_VARIABLE.sub(_default, COMPOSE_TEXT))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]

each_service = pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES)


def _volumes(service: dict[str, Any]) -> dict[str, str]:
    """Return the source of every folder that is mounted in a service."""
    parts = (volume.split(":") for volume in service.get("volumes", ()))
    return {target: source for source, target, *_ in parts}


def _programs(service: dict[str, Any]) -> list[list[str]]:
    """Return the command of a service and of its health check, as words."""
    check = service["healthcheck"]["test"]
    assert check[0] == "CMD"
    return [words for words in (service.get("command"), check[1:]) if words]


@each_service
def test_ports_are_published_on_the_loopback_only(service: dict[str, Any]) -> None:
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
    assert "network_mode" not in service


def test_only_mlflow_is_published_on_the_port_it_listens_on() -> None:
    assert [name for name, service in SERVICES.items() if service.get("ports")] == ["mlflow"]
    (port,) = SERVICES["mlflow"]["ports"]
    assert port.split(":")[1:] == ["5000", "5000"]  # the server's default


@each_service
def test_no_service_can_gain_privileges(service: dict[str, Any]) -> None:
    assert "no-new-privileges:true" in service["security_opt"]
    assert not {"privileged", "cap_add", "user"} & set(service)


@each_service
def test_services_start_after_the_healthy_services_they_need(service: dict[str, Any]) -> None:
    for other, needed in service.get("depends_on", {}).items():
        assert other in SERVICES
        assert needed["condition"] == "service_healthy"


@each_service
def test_services_use_what_the_file_declares(service: dict[str, Any]) -> None:
    assert service["networks"]
    assert set(service["networks"]) <= set(COMPOSE["networks"])
    for source in _volumes(service).values():
        assert source in COMPOSE["volumes"] or source.startswith((".", "/")), source
    if "build" in service:
        context = DOCKER / service["build"]["context"]
        assert context.resolve() == ROOT
        assert (context / service["build"]["dockerfile"]).is_file()


def test_every_declared_volume_and_network_is_used() -> None:
    mounted = {source for service in SERVICES.values() for source in _volumes(service).values()}
    assert set(COMPOSE["volumes"]) <= mounted
    joined = {network for service in SERVICES.values() for network in service["networks"]}
    assert joined == set(COMPOSE["networks"])


@each_service
def test_services_reach_the_hosts_they_name(service: dict[str, Any]) -> None:
    words = [*service.get("command", ()), *map(str, service.get("environment", {}).values())]
    named = set(re.findall(r"(?:@|//|=|^)([a-z][\w-]*)(?=[:/]\d|/mlflow$)", "\n".join(words), re.M))
    named |= set(service.get("depends_on", ()))
    for host in named:
        shared = set(service["networks"]) & set(SERVICES[host]["networks"])
        assert shared, f"no network leads to {host}"


def test_services_name_the_hosts_they_need() -> None:
    """The expected addresses, so that the test of reachable hosts cannot pass on none."""
    head, worker = SERVICES["ray-head"], SERVICES["ray-worker"]
    assert head["environment"]["RAY_ADDRESS"] == "ray-head:6379"
    assert "--port=6379" in head["command"]
    assert "--address=ray-head:6379" in worker["command"]
    assert worker["environment"]["RAY_AUTH_TOKEN"] == head["environment"]["RAY_AUTH_TOKEN"]
    assert any("@postgres/mlflow" in word for word in SERVICES["mlflow"]["command"])
    assert SERVICES["postgres"]["environment"]["POSTGRES_DB"] == "mlflow"


@pytest.mark.filterwarnings("ignore")  # of importing MLflow
def test_programs_know_the_options_they_are_started_with() -> None:
    from mlflow.cli import cli as mlflow_program
    from ray.scripts.scripts import cli as ray_program

    programs = {"mlflow": mlflow_program, "ray": ray_program}
    checked = []
    for service in SERVICES.values():
        for program, *words in _programs(service):
            if program in programs:
                command = programs[program].commands[words[0]]
                command.make_context(words[0], [str(word) for word in words[1:]])
                checked.append(f"{program} {words[0]}")
            elif program == "python":
                assert words[0] == "-c"
                compile(words[1], "health check", "exec")
    assert sorted(checked) == ["mlflow server", "ray health-check", "ray start", "ray start"]


def test_readme_runs_sweeps_that_parse_in_services_that_exist() -> None:
    swept = 0
    for command in commands("docker/README.md"):
        exec_ = re.fullmatch(r"docker compose exec (\S+) (.*)", command)
        words = mint_words(exec_[2] if exec_ else command)
        if words is None:
            assert re.match(r"docker compose |export |'\['", command), command
            continue
        parse(words)
        assert exec_
        folders = {word for word in words if word.startswith("/")}
        assert folders == {"/storage", "/results"}
        assert folders <= set(_volumes(SERVICES[exec_[1]]))
        swept += 1
    assert swept == 2
    text = (DOCKER / "README.md").read_text(encoding="utf-8")
    (report,) = re.findall(r"`uv run (mint report [^`]+)`", text)
    parse(shlex.split(report)[1:])
    for service in re.findall(r"docker compose (?:exec|cp) ([\w-]+)", text):
        assert service in SERVICES
    assert set(re.findall(r"^\| `(\w+)` \|", text.partition("| volume |")[2], re.M)) == set(
        COMPOSE["volumes"]
    )


def test_secrets_must_be_given() -> None:
    secret = re.compile(r"^ *\w*(?:PASSWORD|TOKEN): *(.*)$", re.MULTILINE)
    values = secret.findall(COMPOSE_TEXT)
    assert len(values) == 3
    assert all(re.fullmatch(r"\$\{[A-Z_]+:\?[^}]+\}", value) for value in values)


def test_mlflow_answers_to_its_own_names_only() -> None:
    (option,) = (o for o in SERVICES["mlflow"]["command"] if o.startswith("--allowed-hosts="))
    hosts = option.partition("=")[2].split(",")
    assert set(hosts) == {"mlflow:5000", "127.0.0.1:5000", "localhost:5000"}
    assert SERVICES["ray-head"]["environment"]["MLFLOW_TRACKING_URI"] == f"http://{hosts[0]}"


def test_image_does_not_run_as_root() -> None:
    users = [line.split()[1] for line in DOCKERFILE.splitlines() if line.startswith("USER ")]
    assert users
    assert users[-1] not in ("root", "0")


def test_image_is_built_from_files_and_extras_that_exist() -> None:
    for sources in re.findall(r"^COPY (.+) \S+$", DOCKERFILE, re.M):
        for source in sources.split():
            assert (ROOT / source).exists(), source
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = re.findall(r"--extra (\w+)", DOCKERFILE)
    assert extras
    assert set(extras) <= set(project["optional-dependencies"])
    (install,) = re.findall(r"install --directory .*--group=mint (.*) *\\?$", DOCKERFILE, re.M)
    named = {
        target
        for service in SERVICES.values()
        if "build" in service
        for target, source in _volumes(service).items()
        if source in COMPOSE["volumes"]
    }
    assert named | {"/cache"} == set(install.split())


def test_image_contains_what_the_package_is_built_from_and_no_secrets() -> None:
    first, *rules = [
        line
        for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
        if line and not line.startswith("#")
    ]
    assert first == "*"
    copied = {rule.removeprefix("!") for rule in rules if rule.startswith("!")}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {*wheel["packages"], *wheel["force-include"], project["project"]["readme"]}
    assert needed | {"pyproject.toml", *project["project"]["license-files"]} == copied
    assert "/docker/.env" in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()


def test_gpus_go_to_one_node() -> None:
    (worker,) = yaml.safe_load((DOCKER / "compose.gpu.yaml").read_text())["services"].items()
    name, added = worker
    assert name in SERVICES
    assert added["deploy"]["replicas"] == 1
    assert added["deploy"]["resources"]["reservations"]["devices"][0]["capabilities"] == ["gpu"]
