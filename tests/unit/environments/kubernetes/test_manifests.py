"""The manifests for clusters are objects as the API has them, and fit each other."""

from __future__ import annotations

import pytest

from steward_server.environments.config import EnvironmentsConfig
from steward_server.environments.kubernetes.probing import NEEDED
from tests.unit.environments.kubernetes import manifests, schema
from tests.unit.environments.kubernetes.manifests import Right


@pytest.mark.parametrize("name", sorted(each.name for each in manifests.FOLDER.glob("*.yaml")))
def test_manifests_are_as_the_schema_has_them(name: str) -> None:
    for each in manifests.objects(name):
        assert schema.faults(each, f"V1{each['kind']}") == []


def test_the_role_is_bound_to_the_account() -> None:
    found = {each["kind"]: each for each in manifests.objects("rbac.yaml")}
    binding, account = found["ClusterRoleBinding"], found["ServiceAccount"]["metadata"]
    assert binding["roleRef"]["name"] == found["ClusterRole"]["metadata"]["name"]
    assert [(each["name"], each["namespace"]) for each in binding["subjects"]] == [
        (account["name"], account["namespace"])
    ]


def test_the_role_has_what_the_driver_asks_for_when_it_starts() -> None:
    needed = {
        Right(verb, group, f"{resource}/{sub}" if sub else resource)
        for verb, group, resource, sub in NEEDED
    }
    assert needed <= manifests.rights()


def test_the_account_is_confined_to_the_prefix_that_is_the_default() -> None:
    policy, binding = manifests.objects("confine.yaml")
    expression = policy["spec"]["validations"][0]["expression"]
    prefix = EnvironmentsConfig().kubernetes_namespace_prefix
    assert expression.count(f'startsWith("{prefix}")') == 2
    account = next(
        each["metadata"]
        for each in manifests.objects("rbac.yaml")
        if each["kind"] == "ServiceAccount"
    )
    who = f"system:serviceaccount:{account['namespace']}:{account['name']}"
    assert who in policy["spec"]["matchConditions"][0]["expression"]
    assert binding["spec"]["policyName"] == policy["metadata"]["name"]


@pytest.mark.parametrize(
    ("method", "path", "right"),
    [
        ("GET", "/api/v1/namespaces", Right("list", "", "namespaces")),
        ("GET", "/api/v1/namespaces/a", Right("get", "", "namespaces")),
        ("POST", "/api/v1/namespaces/a/pods", Right("create", "", "pods")),
        ("GET", "/api/v1/namespaces/a/pods/main/exec", Right("get", "", "pods/exec")),
        ("DELETE", "/api/v1/namespaces/a/pods/main", Right("delete", "", "pods")),
        ("GET", "/apis/apps/v1/daemonsets", Right("list", "apps", "daemonsets")),
        ("GET", "/version", None),
    ],
)
def test_what_a_request_needs_is_read_from_its_path(
    method: str, path: str, right: Right | None
) -> None:
    assert manifests.asked(method, path) == right
