"""Images, manifests, rules and pinned versions, as far as they can be tried without containers."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from contract.errors import SettingsError
from service.access import require_safe
from service.settings import Settings
from tests.documents import check_command, commands, metrics, table, text
from tests.listening import Handler, listening
from tests.places import ROOT, program

EXTRAS = ("offline", "annoy", "hnswlib", "milvus", "redis", "bench", "dev")
# What torch brings where it is not built for the CPU alone; and pip, which comes with Python.
UNPINNED = re.compile(r"nvidia-|cuda-|triton|pip$")
PACKAGES = ("contract", "offline", "service", "recipes", "benchmarks")
STATEFUL = ("TANDEM_STORE", "TANDEM_STATE")
SAMPLES = ("", "_bucket", "_sum", "_count")


def documents(name: str) -> list[Any]:
    return list(yaml.safe_load_all(text(name)))


def stages() -> dict[str, str]:
    """The stages of the Dockerfile, by name."""
    _, *parts = re.split(r"^FROM .* AS (\w[\w-]*)$", text("Dockerfile"), flags=re.MULTILINE)
    return dict(zip(parts[::2], parts[1::2], strict=True))


def instruction(stage: str, name: str) -> list[str]:
    """The words of a stage's CMD or HEALTHCHECK, which stand there as JSON."""
    found = re.search(rf"^{name} (?:.*\\\n +CMD )?(\[.*\])$", stage, re.MULTILINE)
    assert found, name
    words: list[str] = json.loads(found[1])
    return words


def test_the_image_copies_what_exists_and_what_the_context_holds() -> None:
    kept = {line[1:] for line in text(".dockerignore").splitlines() if line.startswith("!")}
    copied = [
        word
        for line in re.findall(r"^COPY (.*)$", text("Dockerfile"), re.MULTILINE)
        for word in line.split()[:-1]
    ]

    assert set(copied) == kept
    assert [name for name in copied if not (ROOT / name).exists()] == []


def test_what_the_deploy_files_run_is_what_tandem_has() -> None:
    (compose,) = documents("docker-compose.yml")
    (workflow,) = documents(".github/workflows/ci.yml")
    (job,) = (s for s in compose["services"].values() if "command" in s)
    run = [s.get("run", "") for j in workflow["jobs"].values() for s in j["steps"]]
    found = [instruction(stage, "CMD") for stage in stages().values() if "\nCMD " in stage]
    found += commands(job["command"][-1])
    found += [words for c in commands("\n".join(run)) if c and (words := called(c))]

    for words in found:
        check_command(words)
    verbs = [words[1] for words in found]
    assert verbs == ["doctor", "serve", "data", "train", "publish", "data", "serve", "train"]


def called(words: list[str]) -> list[str]:
    """A command of tandem as a step of the workflow calls it: in .venv, or in a container."""
    if words[:3] == ["docker", "run", "--rm"]:
        return words[4:]
    return ["tandem", *words[1:]] if words[0] == ".venv/bin/tandem" else []


def test_the_image_has_no_setting_that_there_is_not() -> None:
    named = set(re.findall(r"TANDEM_\w+", text("Dockerfile") + text("docker-compose.yml")))
    manifest = set(re.findall(r"TANDEM_\w+", text("deploy/kubernetes.yaml")))

    assert named | manifest <= {f"TANDEM_{name.upper()}" for name in Settings.model_fields}


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1)])
def test_the_health_check_believes_the_status(status: int, code: int) -> None:
    _, *arguments = instruction(stages()["service"], "HEALTHCHECK")

    with answering("/healthz", status) as port:
        environment = os.environ | {"TANDEM_PORT": str(port)}
        done = subprocess.run(
            [sys.executable, *arguments], env=environment, capture_output=True, timeout=30
        )

    assert done.returncode == code


def test_compose_names_what_there_is() -> None:
    (compose,) = documents("docker-compose.yml")

    for service in compose["services"].values():
        if "build" in service:
            assert service["build"]["target"] in stages()
        for volume in service["volumes"]:
            source = volume.split(":")[0]
            assert source in compose["volumes"] or (ROOT / source).is_file(), volume
    (scrape,) = documents("deploy/prometheus.yml")[0]["scrape_configs"]
    (target,) = scrape["static_configs"][0]["targets"]
    assert target.split(":")[0] in compose["services"]


def test_kubernetes_probes_and_mounts_what_there_is() -> None:
    found = {d["kind"]: d for d in documents("deploy/kubernetes.yaml")}
    claims = {
        d["metadata"]["name"]
        for d in documents("deploy/kubernetes.yaml")
        if d["kind"] == "PersistentVolumeClaim"
    }
    pod = found["Deployment"]["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    *mounted, keys = pod["spec"]["volumes"]
    volumes = {v["name"]: v["persistentVolumeClaim"]["claimName"] for v in mounted}
    probes = [container[f"{p}Probe"]["httpGet"] for p in ("startup", "readiness", "liveness")]

    assert set(found) == {"PersistentVolumeClaim", "Deployment", "Service"}
    assert set(volumes.values()) == claims
    assert {m["name"] for m in container["volumeMounts"]} == {*volumes, keys["name"]}
    assert [p["path"] for p in probes] == ["/healthz", "/readyz", "/healthz"]
    assert {p["port"] for p in probes} == {port["name"] for port in container["ports"]}
    assert found["Service"]["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
    mounts = {m["name"]: m["mountPath"] for m in container["volumeMounts"]}
    secrets = mounts.pop(keys["name"])
    assert {e["value"] for e in container["env"] if e["name"] in STATEFUL} == set(mounts.values())
    created = set(re.findall(r"--from-literal=(\w+)=", text("deploy/kubernetes.yaml")))
    files = {e["value"] for e in container["env"] if e["name"].endswith("_KEY_FILE")}
    assert files == {f"{secrets}/{name}" for name in created}


def test_what_is_deployed_is_safe_or_says_that_it_is_not(tmp_path: Path) -> None:
    (compose,) = documents("docker-compose.yml")
    found = {d["kind"]: d for d in documents("deploy/kubernetes.yaml")}
    (container,) = found["Deployment"]["spec"]["template"]["spec"]["containers"]
    host = Settings(host=dict(re.findall(r"TANDEM_(\w+)=(\S+)", stages()["service"]))["HOST"]).host
    key = tmp_path / "key"
    key.write_text("k" * 16)

    with pytest.raises(SettingsError, match="whoever reaches it could write"):
        require_safe(Settings(host=host))
    assert compose["services"]["service"]["environment"]["TANDEM_OPEN_WRITES"] == "true"
    published = [port for s in compose["services"].values() for port in s.get("ports", ())]
    assert [port for port in published if not port.startswith("127.0.0.1:")] == []
    assert "TANDEM_WRITE_KEY_FILE" in {e["name"] for e in container["env"]}
    require_safe(Settings(host=host, write_key_file=str(key)))


def test_the_workflow_runs_what_the_makefile_has() -> None:
    (workflow,) = documents(".github/workflows/ci.yml")
    runs = [
        step["run"] for job in workflow["jobs"].values() for step in job["steps"] if "run" in step
    ]
    made = {run.removeprefix("make ") for run in runs if run.startswith("make ")}

    assert {"check", "test"} <= made
    assert made <= set(re.findall(r"^(\w+):", text("Makefile"), re.MULTILINE))


def test_prometheus_takes_the_configuration() -> None:
    done = promtool("check", "config", "deploy/prometheus.yml")

    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_fires_when_it_should_and_only_then() -> None:
    (rules,) = documents("deploy/alerts.yml")
    alerts = [rule["alert"] for group in rules["groups"] for rule in group["rules"]]
    quiet, *troubled = documents("deploy/alerts_test.yml")[0]["tests"]

    done = promtool("test", "rules", "deploy/alerts_test.yml")

    assert done.returncode == 0, done.stdout + done.stderr
    assert [case["alertname"] for case in quiet["alert_rule_test"]] == alerts
    fired = [c["alertname"] for t in troubled for c in t["alert_rule_test"] if "exp_alerts" in c]
    assert sorted(fired) == sorted(alerts)
    assert table("docs/operations.md", "alert").column("alert") == alerts


@pytest.mark.parametrize(
    "name", ["deploy/alerts.yml", "deploy/alerts_test.yml", "deploy/grafana-dashboard.json"]
)
def test_every_metric_that_is_watched_exists(name: str) -> None:
    exposed = {metric + suffix for metric in metrics() for suffix in SAMPLES}
    watched = set(re.findall(r"\btandem_\w+", text(name)))

    assert watched
    assert watched <= exposed


def test_the_dashboard_shows_every_metric_on_a_panel_of_its_own_place() -> None:
    dashboard = json.loads(text("deploy/grafana-dashboard.json"))
    places = [(p["gridPos"]["x"], p["gridPos"]["y"]) for p in dashboard["panels"]]
    shown = "\n".join(t["expr"] for p in dashboard["panels"] for t in p["targets"])

    assert len(set(places)) == len(places)
    assert [name for name in metrics() if name not in shown] == []


def test_constraints_pin_the_whole_closure_at_the_installed_versions() -> None:
    pinned = dict(re.findall(r"^([\w.-]+)==(\S+)$", text("constraints.txt"), re.MULTILINE))
    wanted = {canonicalize_name(name): version for name, version in pinned.items()}

    installed = closure("tandem-recall", EXTRAS)

    assert {n: v for n, v in installed.items() if not UNPINNED.match(n)} == {
        name: version for name, version in wanted.items() if name in installed
    }
    assert set(wanted) - set(installed) == set()


def closure(name: str, extras: tuple[str, ...]) -> dict[str, str]:
    """Every distribution that an install brings, except itself, with the public version of each."""
    found: dict[str, str] = {}
    ahead = [Requirement(f"{name}[{','.join(extras)}]")]
    while ahead:
        wanted = ahead.pop()
        for line in distribution(wanted.name).requires or []:
            requirement = Requirement(line)
            if not applies(requirement, wanted.extras):
                continue
            key = canonicalize_name(requirement.name)
            if key not in found or requirement.extras:
                found[key] = distribution(requirement.name).version.partition("+")[0]
                ahead.append(requirement)
    return found


def applies(requirement: Requirement, extras: set[str]) -> bool:
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": e}) for e in (*extras, ""))


def test_a_wheel_holds_the_files_that_are_no_python() -> None:
    project = text("pyproject.toml")
    listed = dict(re.findall(r'^(\w+) = \["\*\.(\w+)"\]$', project, re.MULTILINE))
    others = {
        (path.parts[0], path.suffix[1:])
        for name in PACKAGES
        for file in (ROOT / name).rglob("*")
        if file.is_file()
        and (path := file.relative_to(ROOT)).suffix != ".py"
        and "__pycache__" not in path.parts
    }

    assert others == set(listed.items())


def test_the_licence_is_apache_2() -> None:
    assert text("LICENSE").lstrip().startswith("Apache License")
    assert "Copyright 2026 The Tandem authors" in text("LICENSE")
    assert 'license = "Apache-2.0"' in text("pyproject.toml")


def promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [program("promtool", "prometheus"), *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )


@contextmanager
def answering(path: str, status: int) -> Iterator[int]:
    """The port of a server that has this answer for this path and 404 for all others."""

    class Answering(Handler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == path else 404)
            self.end_headers()

    with listening(Answering) as port:
        yield port
