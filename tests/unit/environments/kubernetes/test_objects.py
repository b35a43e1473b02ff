"""What is sent to a cluster, held against its API's schema and against what was promised."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import pytest

from steward_server.environments.driver import Unusable
from steward_server.environments.environment import (
    NetworkPolicy,
    Resources,
    SecurityContext,
    Spec,
    Toleration,
)
from steward_server.environments.kubernetes import objects
from steward_server.environments.kubernetes.marks import Owner
from steward_server.environments.kubernetes.objects import RuntimeClass
from tests.unit.environments.kubernetes import schema

SIZE = Resources(cpu_millicores=1500, memory_bytes=512 << 20, storage_bytes=5 << 30)
LABELS = Owner("abc").labels("env-1")
FULL = Spec(
    "python:3.11-slim",
    SIZE,
    command=("sh", "-c", "echo $HOME $(x) $$"),
    env={"MY_VAR": "$(HOME) costs $$5"},
    runtime_class="gvisor",
    network=NetworkPolicy(
        allow_internet=True,
        allowed_egress=(ip_network("10.0.0.0/8"), ip_network("2001:4860::/32")),
        allowed_ingress_ports=(8080, 9090),
    ),
    security=SecurityContext(
        run_as_user=1234,
        run_as_group=5678,
        run_as_non_root=True,
        read_only_root_filesystem=True,
        allow_privilege_escalation=False,
    ),
    node_selector={"disk": "fast"},
    tolerations=(
        Toleration("gpu", "Equal", "yes", "NoSchedule"),
        Toleration(operator="Exists", effect="NoExecute", toleration_s=30),
    ),
)


def pod(spec: Spec) -> dict[str, Any]:
    return objects.pod("env-1", LABELS, spec, runtime_class=spec.runtime_class, most_life_s=86_400)


@pytest.mark.parametrize("spec", [FULL, Spec("i", SIZE)], ids=["full", "bare"])
def test_every_object_is_as_the_schema_has_it(spec: Spec) -> None:
    made = [
        objects.namespace("agentbox-env-1", LABELS, spec.security, making="m"),
        objects.quota(LABELS, spec, RuntimeClass("gvisor", {"cpu": "250m", "memory": "1Gi"})),
        pod(spec),
    ]
    assert [schema.faults(each) for each in made] == [[], [], []]


def test_the_schema_finds_what_a_server_would_drop_in_silence() -> None:
    made = pod(FULL)
    made["spec"]["automountServiceAccountTokens"] = False
    made["spec"]["containers"][0]["securityContext"]["privileged"] = "no"
    del made["spec"]["containers"][0]["name"]
    assert len(schema.faults(made)) == 3


def test_a_pod_is_given_what_it_may_use_and_no_more() -> None:
    (container,) = pod(FULL)["spec"]["containers"]
    asked = {"cpu": "1500m", "memory": "536870912", "ephemeral-storage": "5368709120"}
    assert container["resources"] == {"requests": asked, "limits": asked}
    volumes = pod(FULL)["spec"]["volumes"]
    assert {each["emptyDir"]["sizeLimit"] for each in volumes} == {"5368709120"}


def test_a_pod_holds_no_right_that_was_not_asked_for() -> None:
    told = pod(Spec("i", SIZE))["spec"]
    (container,) = told["containers"]
    assert told["automountServiceAccountToken"] is False
    assert told["enableServiceLinks"] is False
    assert (told["hostNetwork"], told["hostPID"], told["hostIPC"]) == (False, False, False)
    assert told["shareProcessNamespace"] is True
    assert told["securityContext"]["runAsNonRoot"] is True
    assert told["securityContext"]["runAsUser"] == 1000
    assert told["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "privileged": False,
        "readOnlyRootFilesystem": False,
        "capabilities": {"drop": ["ALL"]},
    }
    assert told["restartPolicy"] == "Never"
    assert told["activeDeadlineSeconds"] == 86_400


def test_what_was_asked_for_stands_in_the_pod() -> None:
    told = pod(FULL)["spec"]
    (container,) = told["containers"]
    assert told["runtimeClassName"] == "gvisor"
    assert told["nodeSelector"] == {"disk": "fast"}
    assert told["tolerations"] == [
        {"key": "gpu", "operator": "Equal", "value": "yes", "effect": "NoSchedule"},
        {"operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 30},
    ]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert (told["securityContext"]["runAsUser"], told["securityContext"]["runAsGroup"]) == (
        1234,
        5678,
    )
    assert [each["containerPort"] for each in container["ports"]] == [8080, 9090]


def test_variables_and_words_are_literal() -> None:
    (container,) = pod(FULL)["spec"]["containers"]
    assert container["command"][2] == "echo $$HOME $$(x) $$$$"
    assert {"name": "MY_VAR", "value": "$$(HOME) costs $$$$5"} in container["env"]


def test_a_pod_without_a_way_out_has_no_names_either() -> None:
    assert pod(Spec("i", SIZE))["spec"]["dnsPolicy"] == "None"
    assert "dnsPolicy" not in pod(FULL)["spec"]


@pytest.mark.parametrize(
    ("security", "level"),
    [
        (SecurityContext(), "restricted"),
        (SecurityContext(run_as_user=7, run_as_non_root=True), "restricted"),
        (SecurityContext(run_as_user=0), "baseline"),
        (SecurityContext(allow_privilege_escalation=True), "baseline"),
    ],
    ids=["default", "other user", "root", "escalation"],
)
def test_a_namespace_is_as_strict_as_what_was_asked_for_lets_it_be(
    security: SecurityContext, level: str
) -> None:
    labels = objects.namespace("n", LABELS, security, making="m")["metadata"]["labels"]
    for mode in ("enforce", "audit", "warn"):
        assert labels[f"pod-security.kubernetes.io/{mode}"] == level


def test_the_labels_of_users_never_stand_for_those_of_the_system() -> None:
    owner = Owner("abc")
    labels = owner.labels(
        "env-1",
        {
            "project": "x",
            "example.com/team": "y",
            "app.kubernetes.io/managed-by": "me",
            "steward.dev/server": "me",
            "steward.dev/environment": "env-2",
            "pod-security.kubernetes.io/enforce": "privileged",
            "kubernetes.io/metadata.name": "kube-system",
            "node.k8s.io/x": "y",
            "not a key": "x",
            "bad-value": "a b",
            "-x": "y",
        },
    )
    assert labels == {
        "project": "x",
        "example.com/team": "y",
        "app.kubernetes.io/managed-by": "steward",
        "steward.dev/server": "abc",
        "steward.dev/environment": "env-1",
    }
    assert owner.environment_of(labels) == "env-1"
    assert Owner("other").environment_of(labels) is None


@pytest.mark.parametrize("name", ["env_1", "ENV", "x" * 60, "a.b", "../x", "env-", ""])
def test_an_id_that_cannot_be_in_the_name_of_a_namespace_has_none(name: str) -> None:
    assert Owner("abc").namespace(name) is None


def test_a_quota_is_one_pod_of_the_size_and_nothing_else() -> None:
    hard = objects.quota(LABELS, FULL, None)["spec"]["hard"]
    assert hard == {
        "pods": "1",
        "requests.cpu": "1500m",
        "requests.memory": "536870912",
        "requests.ephemeral-storage": "5368709120",
        "limits.cpu": "1500m",
        "limits.memory": "536870912",
        "limits.ephemeral-storage": "5368709120",
        "persistentvolumeclaims": "0",
        "services": "0",
        "services.loadbalancers": "0",
        "services.nodeports": "0",
    }


@pytest.mark.parametrize(
    ("security", "reason"),
    [
        (SecurityContext(run_as_user=0, run_as_non_root=True), "RUN_AS_NON_ROOT"),
        (SecurityContext(run_as_user=2**31), "BAD_USER"),
        (SecurityContext(run_as_group=-1), "BAD_USER"),
    ],
    ids=["root", "too high", "negative"],
)
def test_users_that_cannot_be_are_refused(security: SecurityContext, reason: str) -> None:
    with pytest.raises(Unusable) as refusal:
        objects.who(security)
    assert refusal.value.reason == reason


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("500m", 0.5),
        ("2", 2),
        ("1Gi", 2**30),
        ("12345678n", 0.012345678),
        ("1e3", 1000),
        ("3k", 3000),
    ],
)
def test_amounts_are_read_as_clusters_write_them(text: str, value: float) -> None:
    assert objects.amount(text) == pytest.approx(value)
