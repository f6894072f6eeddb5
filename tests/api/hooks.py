"""What a description in JSON Schema cannot say.

A request that is as described may still be refused as not valid, where the rule is between fields or about what there is
at the time. Each such rule is named here: any other refusal of a valid request is a failure.
"""

import re

import schemathesis
from schemathesis.generation import GenerationMode

RULES = [
    r"is not one of this list with these filters",
    r"must be before `to`",
    r"must be at most 400 days before `to`",
    r"expected a time as RFC 3339",
    r"is in the past",
    r"is named twice",
    r"cachedInput and output are parts of amount",
    r"has more than [0-9] decimals",
    r"there is no service binding",
    r"there is no such service binding",
    r"there is no such pool",
    r"must be a name of the IANA time-zone database",
    r"an enterprise client's budget is custom",
    r"the reservation does not hold",
    r"a partition is for one tier or for one clientId",
    r"a dedicated partition never lends",
    r"is used twice",
    r"must be one of downgradeTo",
    r"has the template's own model in it",
    r"has a partition of its own already",
    r"have more than 100 per cent together",
]


@schemathesis.check
def refuses_only_what_a_schema_cannot_say(ctx, response, case):
    meta = case.meta
    if meta is None or meta.generation.mode != GenerationMode.POSITIVE or response.status_code != 400:
        return
    detail = response.json().get("detail", "")
    if not any(re.search(rule, detail) for rule in RULES):
        raise AssertionError(f"a valid request was refused: {detail}")
