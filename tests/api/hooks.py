"""What Schemathesis cannot know of this API."""

import uuid

import schemathesis

KEY = "Idempotency-Key"
KEY_MAX = 255  # characters, as the document says


@schemathesis.hook
def before_call(context, case, kwargs):
    """Gives each order a key of its own: the same key with another order is refused, as it should be."""
    key = (case.headers or {}).get(KEY)
    if case.method.upper() == "POST" and key and len(key) <= KEY_MAX:
        case.headers[KEY] = (uuid.uuid4().hex + key)[:KEY_MAX]
