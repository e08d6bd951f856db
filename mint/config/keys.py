"""Content keys: hashes of everything that a stage or a trial depends on."""

import hashlib
import json
from typing import Any

# Raise it with a change of the code that changes results: results of two methods then never
# share a key or a table.
METHOD_VERSION = 2
# Raise it when a field of a configuration changes its meaning.
SCHEMA_VERSION = 1


def content_key(*parts: Any) -> str:
    """Return sixteen hex digits for JSON values under the method's and the schema's version."""
    versioned = [METHOD_VERSION, SCHEMA_VERSION, *parts]
    content = json.dumps(versioned, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(content.encode()).hexdigest()[:16]
