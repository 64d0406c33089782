"""Claims of an identity provider become a grant here, or nothing."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from abruzzi.contracts.errors import AbruzziError
from abruzzi.identity.oidc import grant_of, groups_of, name_of
from abruzzi.kit.settings import OidcSettings

SETTINGS = OidcSettings.model_validate(
    {
        "issuer": "https://id.example.org",
        "client_id": "abruzzi",
        "grants": [
            {"group": "operators", "role": "admin"},
            {"group": "research", "project": "research", "role": "member"},
            {"group": "everybody", "role": "viewer"},
        ],
    }
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


def test_the_first_grant_in_order_is_taken() -> None:
    grant = grant_of({"sub": "ada", "groups": ["everybody", "research"]}, SETTINGS)
    assert (grant.project, grant.role) == ("research", "member")


def test_of_a_project_that_is_asked_for_only_its_grants_count() -> None:
    claims = {"sub": "ada", "groups": ["everybody", "research"]}
    assert grant_of(claims, SETTINGS, project="default").role == "viewer"
    with pytest.raises(AbruzziError, match="ada is in no group that gives access for project 'other'"):
        grant_of(claims, SETTINGS, project="other")


@given(groups=JSON)
def test_whoever_is_in_no_known_group_gets_nothing_whatever_the_claim_looks_like(groups: Any) -> None:
    known = {grant.group for grant in SETTINGS.grants}
    said = groups if isinstance(groups, list) else [groups]
    if any(isinstance(one, str) and one in known for one in said):
        return
    with pytest.raises(AbruzziError, match="gives access"):
        grant_of({"sub": "ada", "groups": groups}, SETTINGS)


def test_the_claim_may_lie_below_others() -> None:
    assert groups_of({"realm_access": {"roles": ["a"]}}, "realm_access.roles") == ["a"]
    assert groups_of({"https://x.org/groups": ["a"]}, "https://x.org/groups") == ["a"]
    assert groups_of({"groups": "a"}, "groups") == ["a"]
    assert groups_of({"realm_access": "roles"}, "realm_access.roles") == []


def test_an_unverified_address_is_no_name() -> None:
    assert name_of({"sub": "7", "email": "ceo@example.org", "email_verified": False}) == "7"
    assert name_of({"sub": "7", "email": "ada@example.org"}) == "ada@example.org"
    assert name_of({"sub": "7", "name": "a\nb"}) == "7"
    with pytest.raises(AbruzziError, match="names nobody"):
        name_of({})


def test_a_provider_without_grants_is_refused_at_the_start() -> None:
    with pytest.raises(ValidationError, match="grants"):
        OidcSettings.model_validate({"issuer": "https://id.example.org", "client_id": "abruzzi", "grants": []})
